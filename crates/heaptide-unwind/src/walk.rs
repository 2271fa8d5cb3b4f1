//! A walk in step with the last one.

use crate::{Known, Place, Registers, Rule, Stack};

/// A frame as a walk has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Frame {
    /// What it is known by.
    pub registers: Registers,
    /// How it leads to its caller's.
    pub rule: Rule,
    /// Where it goes on.
    pub place: Place,
    /// The caller's to use: what the stack up to this frame is called.
    pub node: u32,
}

/// What a walk has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// So many of the outermost remembered frames are still there.
    pub kept: usize,
    /// So many frames, the innermost first, are new on top of these.
    pub fresh: usize,
}

/// There is no room for a frame more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Walks from `start` outwards. `remembered` are the frames of the last walk, the outermost first; what is not as it was
/// goes to `fresh`, the innermost first. `find` says what is known of an address; nothing is asked about frames that
/// stand where they stood.
///
/// A frame is as it was if it has the registers that it had; its caller then follows from the same rule and the
/// words of the stack as they are now. So each frame that is remembered costs the words that its rule reads, and a comparison.
///
/// # Errors
/// `fresh` is full. What is in it is of no use.
#[inline]
pub fn walk(
    start: Registers,
    stack: &Stack,
    remembered: &[Frame],
    fresh: &mut [Frame],
    mut find: impl FnMut(&Registers) -> Known,
) -> Result<Walk, Full> {
    let mut now = start;
    // Remembered frames that may still lie ahead: `..ahead`.
    let mut ahead = remembered.len();
    let mut count = 0;
    let mut push = |frame: Frame| {
        let place = fresh.get_mut(count).ok_or(Full)?;
        *place = frame;
        count += 1;
        Ok(count)
    };
    let mut found = 0;
    loop {
        while ahead > 0 && remembered[ahead - 1].registers.stack_pointer < now.stack_pointer {
            ahead -= 1;
        }
        if ahead > 0 && remembered[ahead - 1].registers == now {
            let met = ahead;
            let (reached, next) = in_step(&remembered[..met], stack);
            if reached == 0 && next.is_none() {
                return Ok(Walk {
                    kept: met,
                    fresh: found,
                });
            }
            // What was met stands on something else now.
            for frame in remembered[reached..met].iter().rev() {
                found = push(*frame)?;
            }
            ahead = reached;
            match next {
                Some(next) => now = next,
                None => break,
            }
            continue;
        }
        let Known { rule, place } = find(&now);
        found = push(Frame {
            registers: now,
            rule,
            place,
            node: 0,
        })?;
        match rule.apply(&now, stack) {
            Some(next) => now = next,
            None => break,
        }
    }
    Ok(Walk {
        kept: 0,
        fresh: found,
    })
}

/// From the last of the frames outwards for as long as each leads to the one before: the index of the last that was reached,
/// and what it leads to instead.
#[inline(always)]
fn in_step(frames: &[Frame], stack: &Stack) -> (usize, Option<Registers>) {
    let mut at = frames.len() - 1;
    loop {
        let next = frames[at].rule.apply(&frames[at].registers, stack);
        if at == 0 || next != Some(frames[at - 1].registers) {
            return (at, next);
        }
        at -= 1;
    }
}
