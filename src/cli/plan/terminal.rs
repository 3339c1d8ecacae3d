//! Where text is shown: how wide, and whether in colours.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal},
};

use clap::builder::styling::Style;

/// Width of what is no terminal, such as a file.
const COLUMNS: usize = 80;
/// Narrower ones wrap by themselves.
const NARROWEST: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) columns: usize,
    pub(crate) colour: Colour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Ansi,
    None,
}

impl Terminal {
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self {
                columns: COLUMNS,
                colour: Colour::None,
            };
        }
        let refused = env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let columns =
            rustix::termios::tcgetwinsize(stdout).map_or(0, |size| usize::from(size.ws_col));
        Self {
            // 0: the terminal does not know.
            columns: if columns == 0 {
                COLUMNS
            } else {
                columns.max(NARROWEST)
            },
            colour: if refused { Colour::None } else { Colour::Ansi },
        }
    }

    pub(crate) fn paint(self, style: Style, text: impl Display) -> String {
        match self.colour {
            Colour::Ansi => format!("{style}{text}{style:#}"),
            Colour::None => text.to_string(),
        }
    }

    /// Cut to the width, with a mark when something is missing.
    pub(crate) fn clip(self, line: &str) -> String {
        if line.chars().count() <= self.columns {
            return line.to_owned();
        }
        line.chars().take(self.columns - 1).chain(['…']).collect()
    }

    /// Broken at spaces; the second and further lines are indented by two.
    pub(crate) fn wrap(self, text: &str) -> String {
        let mut lines = String::new();
        let mut column = 0;
        for word in text.split(' ') {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > self.columns {
                lines.push_str("\n  ");
                column = 2;
            } else if column > 0 {
                lines.push(' ');
                column += 1;
            }
            lines.push_str(word);
            column += length;
        }
        lines
    }
}
