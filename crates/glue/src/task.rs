//! The nine GLUE tasks and the diagnostic set, as data.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{GlueError, Metric};

/// A task of GLUE. Names, columns and class order are those of the Hugging Face data set `nyu-mll/glue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Corpus of Linguistic Acceptability: is the sentence grammatical?
    Cola,
    /// Stanford Sentiment Treebank: is the sentence positive?
    Sst2,
    /// Microsoft Research Paraphrase Corpus: do both sentences say the same?
    Mrpc,
    /// Quora Question Pairs: do both questions ask the same?
    Qqp,
    /// Semantic Textual Similarity Benchmark: how alike are the sentences, from 0 to 5? The one regression.
    Stsb,
    /// Multi-Genre Natural Language Inference: entailment, neutral or contradiction?
    Mnli,
    /// Question NLI, made from SQuAD: does the sentence answer the question?
    Qnli,
    /// Recognising Textual Entailment: does the second sentence follow from the first?
    Rte,
    /// Winograd NLI: does the sentence with the pronoun replaced follow?
    Wnli,
    /// The diagnostic set: a test split only, for models trained on MNLI.
    Ax,
}

impl Task {
    /// All tasks, in the order of the GLUE paper's tables, the diagnostic set last.
    pub const ALL: [Self; 10] = [
        Self::Cola,
        Self::Sst2,
        Self::Mrpc,
        Self::Qqp,
        Self::Stsb,
        Self::Mnli,
        Self::Qnli,
        Self::Rte,
        Self::Wnli,
        Self::Ax,
    ];

    /// The name on the command line, in folders and in records: "sst2".
    pub fn name(self) -> &'static str {
        match self {
            Self::Cola => "cola",
            Self::Sst2 => "sst2",
            Self::Mrpc => "mrpc",
            Self::Qqp => "qqp",
            Self::Stsb => "stsb",
            Self::Mnli => "mnli",
            Self::Qnli => "qnli",
            Self::Rte => "rte",
            Self::Wnli => "wnli",
            Self::Ax => "ax",
        }
    }

    /// The name of the text column and, for tasks on pairs, of the second one.
    pub fn columns(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Cola | Self::Sst2 => ("sentence", None),
            Self::Mrpc | Self::Stsb | Self::Rte | Self::Wnli => ("sentence1", Some("sentence2")),
            Self::Qqp => ("question1", Some("question2")),
            Self::Mnli | Self::Ax => ("premise", Some("hypothesis")),
            Self::Qnli => ("question", Some("sentence")),
        }
    }

    /// The class names in label order; empty for the regression task.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Cola => &["unacceptable", "acceptable"],
            Self::Sst2 => &["negative", "positive"],
            Self::Mrpc => &["not_equivalent", "equivalent"],
            Self::Qqp => &["not_duplicate", "duplicate"],
            Self::Stsb => &[],
            Self::Mnli | Self::Ax => &["entailment", "neutral", "contradiction"],
            Self::Qnli | Self::Rte => &["entailment", "not_entailment"],
            Self::Wnli => &["not_entailment", "entailment"],
        }
    }

    /// The number of logits: the number of classes, or 1 for the regression task.
    pub fn num_labels(self) -> usize {
        self.labels().len().max(1)
    }

    /// Whether labels are scores (STS-B) rather than classes.
    pub fn is_regression(self) -> bool {
        self.labels().is_empty()
    }

    /// The task's metrics. The first decides which epoch is the best one.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Cola | Self::Ax => &[Metric::Matthews],
            Self::Mrpc | Self::Qqp => &[Metric::Accuracy, Metric::F1],
            Self::Stsb => &[Metric::Pearson, Metric::Spearman],
            Self::Sst2 | Self::Mnli | Self::Qnli | Self::Rte | Self::Wnli => &[Metric::Accuracy],
        }
    }

    /// The splits that an evaluation covers. AX has only its unlabelled `test`, which
    /// [`crate::Dataset::require_labels`] refuses.
    pub fn evaluation_splits(self) -> &'static [&'static str] {
        match self {
            Self::Mnli => &["validation_matched", "validation_mismatched"],
            Self::Ax => &["test"],
            _ => &["validation"],
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Task {
    type Err = GlueError;

    /// Reads a task's name. Case and hyphens do not matter, so the paper's "SST-2" is "sst2".
    fn from_str(given: &str) -> Result<Self, GlueError> {
        let plain = given.to_ascii_lowercase().replace('-', "");
        Self::ALL
            .into_iter()
            .find(|task| task.name() == plain)
            .ok_or_else(|| GlueError::UnknownTask {
                given: given.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
            assert_eq!(serde_json::to_string(&task).unwrap(), format!("\"{task}\""));
        }
        assert_eq!("STS-B".parse::<Task>().unwrap(), Task::Stsb);
        assert_eq!("CoLA".parse::<Task>().unwrap(), Task::Cola);
    }

    #[test]
    fn unknown_name_lists_all_tasks() {
        let message = "sst3".parse::<Task>().unwrap_err().to_string();
        assert!(message.contains("\"sst3\""), "{message}");
        for task in Task::ALL {
            assert!(message.contains(task.name()), "{message}");
        }
    }

    #[test]
    fn every_task_has_a_metric_and_a_logit() {
        for task in Task::ALL {
            assert!(!task.metrics().is_empty());
            assert!(task.num_labels() >= 1);
            assert_eq!(task.is_regression(), task == Task::Stsb);
        }
        assert_eq!(Task::Mnli.num_labels(), 3);
        assert_eq!(Task::Stsb.num_labels(), 1);
    }
}
