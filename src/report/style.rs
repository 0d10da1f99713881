//! Colours by meaning. Off, every text stays as it is.

/// What a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// All well: green.
    Ok,
    /// Changed, or a warning: yellow.
    Changed,
    /// Failed: red.
    Failed,
    /// Skipped: cyan.
    Skipped,
    /// To be noticed: bright blue.
    Notice,
}

/// Whether colours are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// They are.
    pub colour: bool,
}

impl Style {
    /// The text in the colour of its meaning.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Ok => 32,
            Paint::Changed => 33,
            Paint::Failed => 31,
            Paint::Skipped => 36,
            Paint::Notice => 94,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
