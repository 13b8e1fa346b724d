//! What can be timed: how each side is started, what a pair is, and how little time it should take.

use std::path::Path;

use anyhow::Result;

use super::BenchArgs;
use super::material::{self, Material, Shape};

/// What can be timed, all in f32 and with two labels, and in roberta-base's shape unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// A LoRA step with dropouts .1
    LoraStep,
    /// A LoRA step without dropout
    LoraStepNoDropout,
    /// LoRA steps over the rows of MRPC as they are long, dropouts .1 (needs --models and --data)
    MrpcSteps,
    /// A step of full fine-tuning with dropouts .1
    FullStep,
    /// A LoRA step of DeBERTa-v2 (12 layers of 768, with the convolution) with dropouts .1
    DebertaStep,
    /// MRPC's validation split with a merged adapter (needs --models and --data)
    Evaluation,
    /// An epoch of MRPC with LoRA on minilm-l6-roberta (needs --models and --data)
    Epoch,
    /// From the start of the process to the end of the first LoRA step on MRPC with minilm-l6-roberta (needs --models and --data)
    FirstStep,
    /// A LoRA step beside one of the head alone with gradients through the encoder, both ours
    EncoderStep,
    /// Forward and backward of LoRA beside Burn's own `apply_lora` on the same encoder
    BurnLora,
    /// A LoRA step that keeps each layer's input only, beside one that keeps everything, both ours
    CheckpointActivations,
    /// Tokenising MRPC's training split and making batches of it (needs --models and --data)
    Tokenise,
}

/// What the other side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    /// PyTorch + PEFT.
    Peer,
    /// Another way to do it here, in words.
    Ours(&'static str),
}

/// How a pair is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    /// The same request to both, so many times in turn.
    Requests(&'static str, usize),
    /// Both are started anew and timed until they have done their first step.
    Starts,
}

/// Batches in a pair where they are of different lengths.
const MIXED: usize = 10;

impl Work {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 12] = [
        Self::LoraStep,
        Self::LoraStepNoDropout,
        Self::MrpcSteps,
        Self::FullStep,
        Self::DebertaStep,
        Self::Evaluation,
        Self::Epoch,
        Self::FirstStep,
        Self::EncoderStep,
        Self::BurnLora,
        Self::CheckpointActivations,
        Self::Tokenise,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LoraStep => "lora-step",
            Self::LoraStepNoDropout => "lora-step-no-dropout",
            Self::MrpcSteps => "mrpc-steps",
            Self::FullStep => "full-step",
            Self::DebertaStep => "deberta-step",
            Self::Evaluation => "evaluation",
            Self::Epoch => "epoch",
            Self::FirstStep => "first-step",
            Self::EncoderStep => "encoder-step",
            Self::BurnLora => "burn-lora",
            Self::CheckpointActivations => "checkpoint-activations",
            Self::Tokenise => "tokenise",
        }
    }

    /// The work of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.name() == name)
    }

    /// The ratio that it should not be above.
    pub(crate) fn goal(self) -> Option<f64> {
        match self {
            Self::LoraStep => Some(0.62),
            Self::LoraStepNoDropout => Some(0.88),
            Self::MrpcSteps | Self::DebertaStep => Some(0.60),
            Self::FullStep => Some(0.75),
            Self::Evaluation => Some(0.80),
            Self::Epoch => Some(0.55),
            Self::FirstStep => Some(0.30),
            Self::EncoderStep => Some(1.05),
            Self::BurnLora | Self::Tokenise => Some(1.0),
            Self::CheckpointActivations => None,
        }
    }

    /// The same for peak memory.
    pub(crate) fn memory_goal(self) -> Option<f64> {
        match self {
            Self::LoraStep => Some(0.50),
            Self::BurnLora => Some(1.0),
            _ => None,
        }
    }

    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::FullStep => "full",
            _ => "lora",
        }
    }

    pub(crate) fn dropout(self) -> f64 {
        match self {
            Self::LoraStepNoDropout => 0.0,
            _ => 0.1,
        }
    }

    pub(crate) fn against(self) -> Against {
        match self {
            Self::EncoderStep => Against::Ours("head, gradients through the encoder"),
            Self::BurnLora => Against::Ours("Burn's `apply_lora`"),
            Self::CheckpointActivations => Against::Ours("without the option"),
            _ => Against::Peer,
        }
    }

    pub(crate) fn pair(self) -> Pair {
        match self {
            Self::MrpcSteps => Pair::Requests("step", MIXED),
            Self::Evaluation => Pair::Requests("evaluate", 1),
            Self::Epoch => Pair::Requests("epoch", 1),
            Self::Tokenise => Pair::Requests("tokenise", 1),
            Self::FirstStep => Pair::Starts,
            _ => Pair::Requests("step", 1),
        }
    }

    /// Whether it works on real rows, and with a real tokenizer.
    pub(crate) fn needs_data(self) -> bool {
        matches!(
            self,
            Self::MrpcSteps | Self::Evaluation | Self::Epoch | Self::FirstStep | Self::Tokenise
        )
    }

    pub(crate) fn title(self, batch: usize, length: usize, rank: usize) -> String {
        let shape = format!("{batch} x {length} tokens");
        match self {
            Self::LoraStep => format!("LoRA step, dropouts .1, {shape}"),
            Self::LoraStepNoDropout => format!("LoRA step, no dropout, {shape}"),
            Self::MrpcSteps => {
                format!("{MIXED} LoRA steps of {batch} rows of MRPC, dropouts .1")
            }
            Self::FullStep => format!("full fine-tuning step, dropouts .1, {shape}"),
            Self::DebertaStep => {
                format!("LoRA step of DeBERTa-v2 (12 layers), dropouts .1, {shape}")
            }
            Self::Evaluation => {
                "evaluation with a merged adapter, validation split of MRPC".to_owned()
            }
            Self::Epoch => {
                format!("epoch of MRPC, LoRA r {rank}, minilm-l6-roberta, batch {batch}")
            }
            Self::FirstStep => {
                "from the start of the process to the end of the first step of that epoch"
                    .to_owned()
            }
            Self::EncoderStep => format!("LoRA r {rank} step, dropouts .1, {shape}"),
            Self::BurnLora => {
                format!("forward and backward, LoRA r {rank}, dropouts .1, {shape}")
            }
            Self::CheckpointActivations => {
                format!("LoRA step with `--checkpoint-activations`, dropouts .1, {shape}")
            }
            Self::Tokenise => "tokenising MRPC's training split into batches".to_owned(),
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::DebertaStep => Shape::DebertaV2,
            _ => Shape::RobertaBase,
        }
    }

    /// Checkpoint and data, made where they are not there.
    pub(crate) fn material(self, args: &BenchArgs) -> Result<Material> {
        let (Some(models), Some(data), true) = (&args.models, &args.data, self.needs_data()) else {
            let rows = args.batch * (args.steps + 3);
            return material::prepare(self.shape(), args.layers, self.dropout(), rows, args.length);
        };
        let small = models.join("minilm-l6-roberta");
        let model = match self {
            Self::MrpcSteps => material::with_tokenizer(&small, self.dropout())?,
            Self::Evaluation => {
                let base = material::with_tokenizer(&small, self.dropout())?;
                material::merged(&base, data)?
            }
            _ => small,
        };
        Ok(Material {
            model,
            data: data.clone(),
        })
    }

    /// Our side's arguments beyond model, data and sizes.
    pub(crate) fn ours(self) -> Vec<&'static str> {
        match self {
            Self::MrpcSteps | Self::Epoch | Self::FirstStep => vec!["--task", "mrpc"],
            Self::Evaluation => vec!["--task", "mrpc", "--serve", "evaluation"],
            Self::Tokenise => vec!["--task", "mrpc", "--serve", "tokeniser"],
            Self::BurnLora => vec!["--serve", "passes"],
            Self::CheckpointActivations => vec!["--checkpoint-activations"],
            _ => Vec::new(),
        }
    }

    /// The same for the other side, when it is ours too.
    pub(crate) fn other(self) -> Vec<&'static str> {
        match self {
            // One adapter of rank 1 in the first layer: gradients go all the way, and nothing else is trained.
            Self::EncoderStep => vec!["--target", FIRST_QUERY, "--factor-rank", "1"],
            Self::BurnLora => vec!["--serve", "burn-passes"],
            _ => Vec::new(),
        }
    }

    /// The peer's arguments beyond model and sizes.
    pub(crate) fn peer(self, data: &Path) -> Vec<String> {
        if !self.needs_data() {
            return Vec::new();
        }
        let mut line = vec![
            "--data".to_owned(),
            data.to_string_lossy().into_owned(),
            "--task".to_owned(),
            "mrpc".to_owned(),
        ];
        if self == Self::Evaluation {
            line.push("--merged".to_owned());
        }
        line
    }
}

const FIRST_QUERY: &str = r".*encoder\.layer\.0\.attention\.self\.query";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_lead_back() {
        use clap::ValueEnum;
        for work in Work::ALL {
            let typed = work.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), work.name());
            assert_eq!(Work::named(work.name()), Some(work));
        }
        assert_eq!(Work::ALL.len(), Work::value_variants().len());
    }
}
