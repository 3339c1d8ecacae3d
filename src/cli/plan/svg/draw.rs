//! Text, legends and colours of the picture.

use std::fmt::Write;

use crate::cli::svg::escape;

/// Of the whole picture, in pixels like all lengths here.
pub(super) const WIDTH: f64 = 880.0;
/// From one line of text to the next.
pub(super) const LINE: f64 = 20.0;
/// A letter of average width at the size of most texts.
const LETTER: f64 = 6.9;

/// Fills are light enough for dark ink on either page.
///
/// No custom properties: what draws documents rarely knows them, and then shows the light page.
pub(super) const STYLE: &str = "
text{font:12px system-ui,sans-serif;fill:#1c2128}
.title{font-size:18px;font-weight:600}.name{font-size:13px;font-weight:600}
.end{text-anchor:end}.quiet{fill:#59636e}.page{fill:#ffffff}
.left{fill:none;stroke:#8c959f;stroke-dasharray:3 3}
.missing{fill:none;stroke:#e5484d;stroke-width:3}
.attention{fill:#7cb3e8}.dense{fill:#a5d8f3}.experts{fill:#f0b45b}.embeddings{fill:#5fc9a8}.output{fill:#dda0cb}
.kv{fill:#ee8c66}.compute{fill:#f0e06a}.projector{fill:#b7a3e3}.adapters{fill:#8fc7c0}.draft{fill:#bcc06c}
.margin{fill:#c9cfd6}.others{fill:#a3abb5}
.gpu{fill:#5cb87a}.away{fill:#f0b45b}.mixed{fill:#c58fd6}.cpu{fill:#7cb3e8}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}.quiet{fill:#9198a1}.page{fill:#161b22}.left{stroke:#6e7681}
}
.ink{fill:#1c2128}
";

/// Writes one line of text; `class` may be empty.
pub(super) fn text(body: &mut String, x: f64, y: f64, class: &str, content: &str) {
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    let content = escape(content);
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\"{class}>{content}</text>"
    );
}

/// About how long a text becomes: the reader's font is not known.
pub(super) fn length(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// Lines that fit into the picture, broken at spaces.
pub(super) fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if length(line) + length(word) < WIDTH - 64.0 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Swatches with words, from left to right and on further lines.
pub(super) struct Legend {
    left: f64,
    x: f64,
    y: f64,
}

impl Legend {
    pub(super) fn new(left: f64, y: f64) -> Self {
        Self { left, x: left, y }
    }

    /// `swatch` draws 11 by 11 pixels from the corner it is given.
    pub(super) fn entry(
        &mut self,
        body: &mut String,
        words: &str,
        swatch: impl FnOnce(&mut String, f64, f64),
    ) {
        let width = 18.0 + length(words) + 14.0;
        if self.x > self.left && self.x + width > WIDTH - self.left {
            self.x = self.left;
            self.y += LINE;
        }
        swatch(body, self.x, self.y - 9.5);
        text(body, self.x + 18.0, self.y, "", words);
        self.x += width;
    }

    /// The base of its last line.
    pub(super) fn bottom(&self) -> f64 {
        self.y + LINE
    }
}

#[cfg(test)]
pub(super) mod tests {
    /// Whether every element is closed in order, every attribute quoted, every `&` a known entity, and no
    /// character one that XML forbids.
    pub(in super::super) fn well_formed(document: &str) -> Result<(), String> {
        let allowed =
            |letter: char| matches!(letter, '\n' | '\t' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
        if let Some(letter) = document.chars().find(|letter| !allowed(*letter)) {
            return Err(format!("{letter:?} is no character of XML"));
        }
        let mut open = Vec::new();
        let mut rest = document;
        while let Some((text, tail)) = rest.split_once('<') {
            content(text)?;
            let (tag, tail) = tail.split_once('>').ok_or("a tag without end")?;
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("</{name}> closes nothing"));
                }
            } else {
                let (inside, empty) = match tag.strip_suffix('/') {
                    Some(inside) => (inside, true),
                    None => (tag, false),
                };
                let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
                if name.is_empty() || !name.chars().all(char::is_alphanumeric) {
                    return Err(format!("<{name}> is no element"));
                }
                quoted(attributes)?;
                if !empty {
                    open.push(name);
                }
            }
            if open.is_empty() && !tail.trim().is_empty() {
                return Err(format!("after the end: {tail}"));
            }
            rest = tail;
        }
        match open.last() {
            Some(name) => Err(format!("<{name}> stays open")),
            None => Ok(()),
        }
    }

    fn content(text: &str) -> Result<(), String> {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        for entity in text.split('&').skip(1) {
            if !known.iter().any(|known| entity.starts_with(known)) {
                return Err(format!("&{entity}"));
            }
        }
        Ok(())
    }

    fn quoted(attributes: &str) -> Result<(), String> {
        let mut rest = attributes.trim();
        while !rest.is_empty() {
            let (_, value) = rest.split_once("=\"").ok_or_else(|| rest.to_owned())?;
            let (value, tail) = value.split_once('"').ok_or("a quote without end")?;
            content(value)?;
            rest = tail.trim_start();
        }
        Ok(())
    }

    #[test]
    fn what_is_not_well_formed_is_found() {
        for bad in [
            "<a>",
            "<a></b>",
            "<a>&b;</a>",
            "<a b=\"></a>",
            "<a/>x",
            "<a>\u{7}</a>",
            "<a>x < y</a>",
        ] {
            assert!(well_formed(bad).is_err(), "{bad}");
        }
        assert_eq!(well_formed("<a b=\"&quot;\">x<c/>&lt;</a>\n"), Ok(()));
    }
}
