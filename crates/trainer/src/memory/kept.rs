//! What a tape of operations is made of: tensors, and what each operation keeps for its gradient.

use super::heap::{Block, Shared};
use super::sizes::Linear;

/// Tokens that share a product with a table of positions, in the attention's scratch memory.
const BAND: u64 = 32;

/// A place where gradients are added up.
pub(super) type Node = usize;

/// A tensor.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) node: Node,
    /// Longest way from a leaf: gradients are computed in its order.
    pub(super) depth: u32,
    /// A gradient goes through it.
    pub(super) tracked: bool,
    pub(super) block: Shared,
    pub(super) numbers: u64,
}

impl Value {
    /// Where its gradient goes, if it has one.
    pub(super) fn wanted(&self) -> Option<Node> {
        self.tracked.then_some(self.node)
    }
}

/// Whose gradient it is, among what is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Weight(usize),
    FactorA(usize),
    FactorB(usize),
    Words,
    Positions,
    Types,
    Distances,
}

/// The extents of an attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    pub(super) rows: u64,
    /// Queries of a row.
    pub(super) queries: u64,
    /// Keys of a row.
    pub(super) keys: u64,
    pub(super) heads: u64,
    /// Rows of the tables of positions.
    pub(super) span: u64,
    pub(super) hidden: u64,
}

/// What a LayerNorm does beside normalising.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Norm {
    /// It has a dropout before the residual.
    pub(super) drops: bool,
    /// Its own parameters are trained, one of them at least.
    pub(super) trained: bool,
    /// The bias before it is trained.
    pub(super) bias: bool,
}

/// An operation whose gradients may be asked for.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) depth: u32,
    pub(super) output: Node,
    pub(super) undo: Undo,
}

/// What an operation keeps, by what it is.
#[derive(Debug)]
pub(super) enum Undo {
    Linear(Product),
    Norm {
        x: Option<Node>,
        residual: Option<Node>,
        kept: Vec<Shared>,
        numbers: u64,
        norm: Norm,
    },
    /// One input that gets a gradient of `numbers`; what is kept goes when it is there. In the memory of the output's gradient or not.
    Map {
        x: Option<Node>,
        kept: Vec<Shared>,
        numbers: u64,
        in_place: bool,
    },
    /// The gradient itself, changed in its place where nobody else holds it.
    InPlace {
        x: Node,
    },
    /// The gradient itself, for several.
    Same {
        inputs: Vec<Node>,
    },
    Attention {
        inputs: Vec<Option<Node>>,
        kept: Vec<Shared>,
        numbers: u64,
        of: Attention,
    },
    /// With the layers of queries, keys and values.
    SelfAttention {
        x: Option<Node>,
        /// The input, where it is needed.
        input: Option<Shared>,
        /// Queries, keys, values and probabilities.
        kept: Vec<Shared>,
        /// Projections by the adapters, where they are kept.
        low: Vec<Option<Shared>>,
        linears: [Linear; 3],
        numbers: u64,
        of: Attention,
    },
    /// Of one query a row: q and x, and the layers of keys and values.
    FirstAttention {
        inputs: [Option<Node>; 2],
        kept: Vec<Shared>,
        linears: [Linear; 2],
        of: Attention,
    },
    /// A table of that many numbers, of which so many rows are read.
    Table {
        key: Key,
        numbers: u64,
        read: u64,
    },
}

/// A linear layer, kept.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) x: Option<Node>,
    pub(super) rows: u64,
    pub(super) linear: Linear,
    /// The input, where it is needed, and its projection by the adapter, where it is kept.
    pub(super) input: Option<Shared>,
    pub(super) low: Option<Shared>,
    /// A weight that was made for this product.
    pub(super) matrix: Option<Shared>,
}

/// A gradient of what is trained.
#[derive(Debug)]
pub(super) struct Gradient {
    pub(super) block: Block,
    /// Reading it makes a copy.
    pub(super) copied: bool,
}

/// What is taken of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableRows {
    pub(super) numbers: u64,
    pub(super) trained: bool,
    /// The table is stored in 16 bit.
    pub(super) half: bool,
}

impl Attention {
    /// Heads of all rows.
    pub(super) fn tasks(&self) -> u64 {
        self.rows.saturating_mul(self.heads)
    }

    /// Scores of all heads.
    pub(super) fn scores(&self) -> u64 {
        let pairs = self.queries.saturating_mul(self.keys);
        self.tasks().saturating_mul(pairs)
    }

    /// A vector of x for every head, and so many numbers more.
    pub(super) fn wide(&self, more: u64) -> u64 {
        self.tasks()
            .saturating_mul(self.hidden.saturating_add(more))
    }

    /// The sums of every head: of x, of an adapter's projection, and of 1.
    pub(super) fn summed(&self, rank: u64) -> u64 {
        self.wide(rank.saturating_add(1))
    }

    /// Numbers of a thread's scratch memory that hold so many matrices of scores.
    pub(super) fn scratch(&self, matrices: u64) -> u64 {
        let scores = self.queries.saturating_mul(self.keys);
        let band = BAND.saturating_mul(self.span);
        scores.saturating_mul(matrices).saturating_add(band)
    }
}
