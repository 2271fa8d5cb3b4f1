//! What text reports may use of the terminal.

/// What text reports may use of the terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions {
    /// ANSI colours.
    pub color: bool,
    /// Line drawing characters outside ASCII.
    pub unicode: bool,
}

impl TextOptions {
    /// `text` coloured by its share of the whole, as Memray's tables are: red, yellow, green.
    pub(crate) fn by_share(self, percent: f64, text: String) -> String {
        let style = match percent {
            percent if percent > 60.0 => "31",
            percent if percent > 20.0 => "33",
            percent if percent > 5.0 => "32",
            _ => "92",
        };
        self.styled(style, text)
    }

    /// `text` with the parameters of an ANSI escape sequence.
    pub(crate) fn styled(self, style: &str, text: String) -> String {
        if self.color {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text
        }
    }
}
