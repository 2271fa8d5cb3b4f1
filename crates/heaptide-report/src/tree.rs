//! `heaptide tree`: who called whom, from the outermost frame inwards.

use std::io::{self, Write};

use heaptide_engine::{Amount, CallTree, LocationId, Metric, Profile};

use crate::SCHEMA_VERSION;
use crate::format::{bytes_text, count_text, percent, percent_text};
use crate::object::{object, write_line};
use crate::stats::place_text;
use crate::text::TextOptions;
use crate::threads::ThreadFrames;

/// What `tree` shows.
#[derive(Clone, Copy)]
pub struct TreeOptions<'a> {
    /// What is counted.
    pub metric: Metric,
    /// How many frames deep.
    pub depth: usize,
    /// Branches with a smaller share of the whole are left out.
    pub min_percent: f64,
    /// Only stacks with a frame whose `function  file:line` this likes.
    pub focus: Option<&'a dyn Fn(&str) -> bool>,
    /// Which frames are threads, where the profile was split by them.
    pub threads: Option<&'a ThreadFrames>,
}

impl Default for TreeOptions<'_> {
    fn default() -> Self {
        Self {
            metric: Metric::Peak,
            depth: 100,
            min_percent: 1.0,
            focus: None,
            threads: None,
        }
    }
}

/// The call tree with the amounts that are to be shown.
struct Shown {
    tree: CallTree,
    own: Vec<Amount>,
    total: Vec<Amount>,
    children: Vec<Vec<u32>>,
}

impl Shown {
    fn new(profile: &Profile, options: &TreeOptions<'_>) -> Self {
        let tree = CallTree::new(profile);
        let mut own = tree.own(profile, options.metric);
        if let Some(focus) = options.focus {
            let liked: Vec<bool> = (0..profile.stacks.locations.len())
                .map(|index| {
                    let location = profile.stacks.locations[index];
                    let text = |id| profile.stacks.text(id);
                    focus(&format!(
                        "{}  {}:{}",
                        text(location.function),
                        text(location.file),
                        location.line
                    ))
                })
                .collect();
            // A node is kept when it or one of its callers is liked; callers come first.
            let mut kept = vec![false; tree.nodes.len()];
            for (index, node) in tree.nodes.iter().enumerate().skip(1) {
                let location = profile.stacks.frames[node.frame.index()].location;
                kept[index] = kept[node.parent as usize] || liked[location.index()];
            }
            for (amount, kept) in own.iter_mut().zip(kept) {
                if !kept {
                    *amount = Amount::default();
                }
            }
        }
        let total = tree.total(&own);
        let children = tree.children(&total);
        Self {
            tree,
            own,
            total,
            children,
        }
    }

    fn location(&self, profile: &Profile, index: u32) -> LocationId {
        profile.stacks.frames[self.tree.nodes[index as usize].frame.index()].location
    }

    /// Follows frames that only call themselves; gives the innermost and how many there are.
    fn last_of_recursion(&self, profile: &Profile, outermost: u32) -> (u32, usize) {
        let (mut index, mut times) = (outermost, 1);
        while let [child] = self.children[index as usize][..] {
            let same = index != 0 && self.location(profile, index) == self.location(profile, child);
            if !same || !self.own[index as usize].is_zero() {
                break;
            }
            (index, times) = (child, times + 1);
        }
        (index, times)
    }

    fn label(&self, profile: &Profile, index: u32) -> String {
        match index {
            0 => "(all)".to_owned(),
            _ => place_text(profile, self.location(profile, index)),
        }
    }
}

/// A line still to be printed.
enum Pending {
    Node {
        index: u32,
        depth: usize,
        prefix: String,
        branch: &'static str,
    },
    Rest {
        count: usize,
        amount: Amount,
        prefix: String,
    },
}

/// Line drawing: inner branch, last branch, continued line, nothing, chain.
struct Drawing {
    inner: &'static str,
    last: &'static str,
    line: &'static str,
    space: &'static str,
    chain: &'static str,
    more: &'static str,
}

const UNICODE: Drawing = Drawing {
    inner: "├─ ",
    last: "└─ ",
    line: "│  ",
    space: "   ",
    chain: "╰ ",
    more: "…",
};
const ASCII: Drawing = Drawing {
    inner: "|- ",
    last: "`- ",
    line: "|  ",
    space: "   ",
    chain: "` ",
    more: "...",
};

/// The tree, one frame a line: share, bytes, blocks, function and place. A frame that has only one
/// caller and one callee does not add to the indentation.
///
/// # Errors
/// When writing fails.
pub fn tree_text(
    profile: &Profile,
    options: TreeOptions<'_>,
    text: TextOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let drawing = if text.unicode { UNICODE } else { ASCII };
    let shown = Shown::new(profile, &options);
    let whole = profile.totals.figures.get(options.metric).bytes;
    // A stack and not a recursion: programs can be deeper than our own stack.
    let mut pending = vec![Pending::Node {
        index: 0,
        depth: 0,
        prefix: String::new(),
        branch: "",
    }];
    while let Some(line) = pending.pop() {
        let (outermost, depth, prefix, branch) = match line {
            Pending::Node {
                index,
                depth,
                prefix,
                branch,
            } => (index, depth, prefix, branch),
            Pending::Rest {
                count,
                amount,
                prefix,
            } => {
                let figures = figures_text(amount, whole);
                writeln!(
                    out,
                    "{figures}  {prefix}{}{} {count} more",
                    drawing.last, drawing.more
                )?;
                continue;
            }
        };
        let (index, times) = shown.last_of_recursion(profile, outermost);
        let depth = depth + times - 1;
        let amount = shown.total[outermost as usize];
        let figures = text.by_share(percent(amount.bytes, whole), figures_text(amount, whole));
        write!(
            out,
            "{figures}  {prefix}{branch}{}",
            shown.label(profile, index)
        )?;
        if times > 1 {
            write!(out, "  ({times} times)")?;
        }
        let children = &shown.children[index as usize];
        let own = shown.own[index as usize];
        if !children.is_empty() && index != 0 && own.bytes > 0 {
            write!(out, "  (own {})", bytes_text(own.bytes))?;
        }
        writeln!(out)?;

        let below = match branch {
            _ if branch == drawing.inner => prefix + drawing.line,
            _ if branch == drawing.last => prefix + drawing.space,
            _ => prefix,
        };
        let (large, small): (Vec<u32>, Vec<u32>) = children.iter().partition(|&&child| {
            depth < options.depth
                && percent(shown.total[child as usize].bytes, whole) >= options.min_percent
        });
        let only = large.len() == 1 && small.is_empty();
        let last_index = large.len().saturating_sub(1);
        if !small.is_empty() {
            let mut amount = Amount::default();
            small
                .iter()
                .for_each(|&child| amount.add(shown.total[child as usize]));
            pending.push(Pending::Rest {
                count: small.len(),
                amount,
                prefix: below.clone(),
            });
        }
        for (place, &child) in large.iter().enumerate().rev() {
            let branch = match place {
                _ if only => drawing.chain,
                place if place == last_index && small.is_empty() => drawing.last,
                _ => drawing.inner,
            };
            pending.push(Pending::Node {
                index: child,
                depth: depth + 1,
                prefix: below.clone(),
                branch,
            });
        }
    }
    Ok(())
}

fn figures_text(amount: Amount, whole: u64) -> String {
    format!(
        "{:>6}  {:>10}  {:>9}",
        percent_text(amount.bytes, whole),
        bytes_text(amount.bytes),
        count_text(amount.count)
    )
}

/// The tree as JSON lines: first the report's head, then one node a line, callers first.
///
/// # Errors
/// When writing fails.
pub fn tree_json(
    profile: &Profile,
    options: TreeOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let shown = Shown::new(profile, &options);
    let whole = profile.totals.figures.get(options.metric);
    write_line(
        out,
        &object! {
            "record": "tree",
            "schema_version": SCHEMA_VERSION,
            "metric": options.metric.name(),
            "total_bytes": whole.bytes,
            "total_count": whole.count,
        },
    )?;
    let mut pending = vec![(0u32, 0usize, None)];
    while let Some((index, depth, thread)) = pending.pop() {
        let node = &shown.tree.nodes[index as usize];
        let (own, total) = (shown.own[index as usize], shown.total[index as usize]);
        let frame = &profile.stacks.frames[node.frame.index()];
        let location = profile.stacks.locations[frame.location.index()];
        let frame_thread = options
            .threads
            .and_then(|threads| threads.thread_of(frame.location));
        let thread = thread.or(frame_thread.filter(|_| index != 0));
        let inner = index != 0 && frame_thread.is_none();
        let mut record = object! {
                "record": "node",
                "id": index,
                "parent": (index != 0).then_some(node.parent),
                "depth": depth,
                "function": inner.then(|| profile.stacks.text(location.function)),
                "file": inner.then(|| profile.stacks.text(location.file)),
                "line": inner.then_some(location.line),
                "own_bytes": own.bytes,
                "own_count": own.count,
                "total_bytes": total.bytes,
                "total_count": total.count,
        };
        if options.threads.is_some() {
            let thread = thread.map(|thread| &profile.threads[thread as usize]);
            record.push("thread_id", thread.map(|thread| thread.thread_id));
            record.push("thread_name", thread.map(|thread| thread.name.as_str()));
        }
        write_line(out, &record)?;
        if depth < options.depth {
            let children = shown.children[index as usize].iter().rev();
            let large = children.filter(|&&child| {
                percent(shown.total[child as usize].bytes, whole.bytes) >= options.min_percent
            });
            pending.extend(large.map(|&child| (child, depth + 1, thread)));
        }
    }
    Ok(())
}
