//! The prompt that asks a model to fill a gap between two texts (fill in the middle).

use crate::{
    api::error::ApiError,
    engine::{
        Token,
        model::{Fim, Vocab},
    },
};

/// A text with a gap.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::api) struct Gap<'a> {
    pub(in crate::api) before: &'a str,
    pub(in crate::api) after: &'a str,
    /// How what fills it begins; control tokens in it are read as such.
    pub(in crate::api) begins: &'a str,
}

/// Another text that helps to fill the gap.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extra {
    pub(super) filename: String,
    pub(super) text: String,
}

/// The marks of a vocabulary that has all that is needed.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Marks {
    prefix: Token,
    suffix: Token,
    middle: Token,
    fim: Fim,
}

impl Marks {
    pub(in crate::api) fn of(vocab: &dyn Vocab) -> Result<Self, ApiError> {
        let fim = vocab.fim();
        match (fim.prefix, fim.suffix, fim.middle) {
            (Some(prefix), Some(suffix), Some(middle)) => Ok(Self {
                prefix,
                suffix,
                middle,
                fim,
            }),
            (prefix, suffix, middle) => {
                let marks = [("prefix", prefix), ("suffix", suffix), ("middle", middle)];
                let missing = marks.iter().filter(|(_, token)| token.is_none());
                let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
                Err(ApiError::WrongWork(format!(
                    "the model served here cannot fill a gap: its vocabulary has no token for {}",
                    missing.join(", ")
                )))
            }
        }
    }

    /// `begin` `<prefix>`before, begins`<suffix>`after`<middle>`
    pub(in crate::api) fn prompt(&self, gap: Gap<'_>, vocab: &dyn Vocab) -> Vec<Token> {
        let plain = |text: &str| vocab.tokenize(text, false, false);
        let mut prompt: Vec<_> = self.fim.begin.into_iter().collect();
        prompt.push(self.prefix);
        prompt.append(&mut plain(gap.before));
        prompt.append(&mut vocab.tokenize(gap.begins, false, true));
        prompt.push(self.suffix);
        prompt.append(&mut plain(gap.after));
        prompt.push(self.middle);
        prompt
    }

    /// What comes before [`Self::prompt`] when there are other files, in the form that llama-server gives it. Of more
    /// than `room` tokens the last ones.
    pub(super) fn files(&self, extras: &[Extra], room: usize, vocab: &dyn Vocab) -> Vec<Token> {
        const SNIPPET: &str = "\n\n--- snippet ---\n\n";
        let plain = |text: &str| vocab.tokenize(text, false, false);
        let mut files = Vec::new();
        if let Some(repository) = self.fim.repository {
            files.push(repository);
            files.append(&mut plain("myproject\n"));
        }
        let name = |files: &mut Vec<Token>, name: &str| match self.fim.file {
            Some(mark) => {
                files.push(mark);
                files.append(&mut plain(&format!("{name}\n")));
            }
            None => files.append(&mut plain(SNIPPET)),
        };
        for extra in extras {
            name(&mut files, &extra.filename);
            files.append(&mut plain(&extra.text));
        }
        if self.fim.file.is_some() {
            name(&mut files, "filename");
        }
        files.split_off(files.len().saturating_sub(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeVocab;

    fn marks(repository: Option<Token>, file: Option<Token>) -> Marks {
        Marks {
            prefix: 1,
            suffix: 2,
            middle: 3,
            fim: Fim {
                begin: Some(0),
                repository,
                file,
                ..Fim::default()
            },
        }
    }

    fn show(tokens: &[Token]) -> String {
        super::super::prompt::text_of(tokens, &FakeVocab)
    }

    #[test]
    fn the_gap_stands_between_its_marks() {
        let gap = Gap {
            before: "ab",
            after: "ef",
            begins: "c",
        };
        let prompt = marks(None, None).prompt(gap, &FakeVocab);
        assert_eq!(show(&prompt), "\0\u{1}abc\u{2}ef\u{3}");
    }

    #[test]
    fn other_files_come_first_and_the_last_of_them_stays() {
        let extras = ["x", "y"].map(|text| Extra {
            filename: format!("{text}.rs"),
            text: text.to_owned(),
        });
        let marked = marks(Some(4), Some(5));
        let all = "\u{4}myproject\n\u{5}x.rs\nx\u{5}y.rs\ny\u{5}filename\n";
        assert_eq!(show(&marked.files(&extras, 99, &FakeVocab)), all);
        assert_eq!(
            show(&marked.files(&extras, 11, &FakeVocab)),
            "y\u{5}filename\n"
        );
        let plain = marks(None, None).files(&extras, 99, &FakeVocab);
        assert_eq!(
            show(&plain),
            "\n\n--- snippet ---\n\nx\n\n--- snippet ---\n\ny"
        );
    }

    #[test]
    fn a_vocabulary_without_marks_says_which_are_missing() {
        let error = Marks::of(&FakeVocab).unwrap_err();
        insta::assert_snapshot!(error, @"the model served here cannot fill a gap: its vocabulary has no token for prefix, suffix, middle");
    }
}
