//! What the operations of a forward pass take and keep: `lowburn-kernels` and Burn's autodiff without their numbers.
//!
//! An operation takes its output and what it needs on the way, and the tape holds what its gradient needs: what the
//! `State` of its backward pass holds there. That is the input of a linear layer whose weight is trained or that has an
//! adapter, and nothing of a frozen one; q, k and v of an attention, and its probabilities where they are few; the input
//! of a GELU; the normalised rows of a LayerNorm. Blocks have several holders, as tensors have, and dropout masks are
//! never kept.
//! The way back is in [`super::undo`].

use std::collections::BTreeMap;
use std::rc::Rc;

use lowburn_kernels::{keeps_probabilities, keeps_projected};
use lowburn_models::Activation;

use super::heap::{Block, Heap, NUMBER, Part, Shared};
use super::kept::{Attention, Gradient, Key, Node, Norm, Product, Step, TableRows, Undo, Value};
use super::sizes::Linear;

/// A process and the passes in it.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) heap: Heap,
    pub(super) steps: Vec<Step>,
    pub(super) gradients: BTreeMap<Node, Shared>,
    /// Of what is trained, in this graph.
    pub(super) trained: BTreeMap<Key, Gradient>,
    /// Of what is trained, out of the graph.
    pub(super) sum: BTreeMap<Key, Gradient>,
    /// Gradients will be asked for.
    pub(super) records: bool,
    /// Dropout drops.
    pub(super) drops: bool,
    /// The attention's memory of each thread, which only grows.
    pub(super) scratch: Vec<Option<Block>>,
    nodes: Node,
}

impl Tape {
    /// A process with so many threads.
    pub(super) fn new(threads: usize) -> Self {
        Self {
            scratch: std::iter::repeat_with(|| None)
                .take(threads.max(1))
                .collect(),
            ..Self::default()
        }
    }

    /// Memory of so many f32.
    pub(super) fn fresh(&mut self, numbers: u64, part: Part) -> Shared {
        Rc::new(self.heap.take(numbers.saturating_mul(NUMBER), part))
    }

    /// A tensor in memory that is there.
    pub(super) fn value(
        &mut self,
        block: Shared,
        numbers: u64,
        depth: u32,
        tracked: bool,
    ) -> Value {
        self.nodes += 1;
        Value {
            node: self.nodes,
            depth,
            tracked,
            block,
            numbers,
        }
    }

    /// Lets go of a tensor.
    pub(super) fn release(&mut self, value: Value) {
        self.heap.release(value.block);
    }

    /// Lets go of memory.
    pub(super) fn drop_all(&mut self, blocks: impl IntoIterator<Item = Shared>) {
        for block in blocks {
            self.heap.release(block);
        }
    }

    pub(super) fn push(&mut self, output: &Value, undo: Undo) {
        self.steps.push(Step {
            depth: output.depth,
            output: output.node,
            undo,
        });
    }

    /// The projection of a layer's input by its adapter, if it has one.
    fn low(&mut self, linear: &Linear, rows: u64) -> Option<Shared> {
        if linear.rank == 0 {
            return None;
        }
        let dropped = self.drops.then(|| self.dropped(linear, rows)).flatten();
        let low = self.fresh(rows.saturating_mul(linear.rank), Part::Buffers);
        self.drop_all(dropped);
        Some(low)
    }

    /// What of it stays for the backward pass.
    fn kept_low(&mut self, low: Option<Shared>, linear: &Linear, tracked: bool) -> Option<Shared> {
        match tracked && keeps_projected(linear.rank) {
            true => low,
            false => {
                self.drop_all(low);
                None
            }
        }
    }

    /// x W + b + scale dropout(x) A B of so many rows. `matrix`: a weight that was made for it.
    pub(super) fn linear(
        &mut self,
        x: Value,
        linear: &Linear,
        rows: u64,
        bias: bool,
        matrix: Option<Shared>,
    ) -> Value {
        let own = linear.weight || linear.rank > 0 || (bias && linear.bias);
        let tracked = self.records && (x.tracked || own);
        let wide = self.widened(linear);
        let adapted = linear.rank > 0;
        let low = self.low(linear, rows);
        let numbers = rows.saturating_mul(linear.outputs);
        let block = self.fresh(numbers, Part::Activations);
        self.pack([rows, linear.inputs, linear.outputs], true, [1, 1]);
        self.drop_all(wide);
        let low = self.kept_low(low, linear, tracked);
        let output = self.value(block, numbers, x.depth + 1, tracked);
        if tracked {
            let needed = linear.weight || adapted;
            let product = Product {
                x: x.wanted(),
                rows,
                linear: *linear,
                input: needed.then(|| Rc::clone(&x.block)),
                low,
                matrix,
            };
            self.push(&output, Undo::Linear(product));
        } else {
            self.drop_all(matrix);
        }
        self.release(x);
        output
    }

    /// LayerNorm(residual + dropout(x + bias)) of rows of `hidden` numbers.
    pub(super) fn norm(
        &mut self,
        x: Value,
        residual: Option<Value>,
        hidden: u64,
        norm: Norm,
    ) -> Value {
        let numbers = x.numbers;
        let above = residual.as_ref().is_some_and(|residual| residual.tracked);
        let tracked = self.records && (x.tracked || above || norm.trained || norm.bias);
        let inverse = self.fresh(numbers / hidden.max(1), Part::Activations);
        let block = self.fresh(numbers, Part::Activations);
        let normalised = self.fresh(numbers, Part::Activations);
        let kept = vec![normalised, inverse];
        let deepest = residual.as_ref().map_or(0, |residual| residual.depth);
        let output = self.value(block, numbers, x.depth.max(deepest) + 1, tracked);
        if tracked {
            let undo = Undo::Norm {
                x: x.wanted(),
                residual: residual.as_ref().and_then(Value::wanted),
                kept,
                numbers,
                norm,
            };
            self.push(&output, undo);
        } else {
            self.drop_all(kept);
        }
        self.release(x);
        self.drop_all(residual.map(|residual| residual.block));
        output
    }

    /// An activation; `trained`: so is the bias before it.
    pub(super) fn activate(&mut self, x: Value, activation: Activation, trained: bool) -> Value {
        let tracked = self.records && (x.tracked || trained);
        if !tracked && activation != Activation::Gelu {
            return self.activate_in_place(x, activation);
        }
        let numbers = x.numbers;
        let block = self.fresh(numbers, Part::Activations);
        // Those that are composed of Burn's operations keep what lies between them.
        let between = match activation {
            Activation::Gelu | Activation::Relu | Activation::Tanh => 0,
            Activation::Silu => 1,
            Activation::GeluTanh => 3,
        };
        let mut kept = Vec::new();
        for _ in 0..between {
            kept.push(self.fresh(numbers, Part::Activations));
        }
        let output = self.value(block, numbers, x.depth + 1, tracked);
        if tracked {
            kept.push(Rc::clone(&x.block));
            let x = x.wanted();
            let undo = Undo::Map {
                x,
                kept,
                numbers,
                in_place: activation == Activation::Gelu,
            };
            self.push(&output, undo);
        } else {
            self.drop_all(kept);
        }
        self.release(x);
        output
    }

    /// An activation of Burn's own operations that nobody will differentiate.
    fn activate_in_place(&mut self, x: Value, activation: Activation) -> Value {
        if matches!(activation, Activation::Silu | Activation::GeluTanh) {
            self.heap.pass(x.numbers.saturating_mul(NUMBER));
        }
        let output = self.value(Rc::clone(&x.block), x.numbers, x.depth + 1, false);
        self.release(x);
        output
    }

    /// Something else of one input, with `numbers` in the output, that keeps nothing.
    pub(super) fn map(&mut self, x: Value, numbers: u64) -> Value {
        let block = self.fresh(numbers, Part::Activations);
        let output = self.value(block, numbers, x.depth + 1, self.records && x.tracked);
        if output.tracked {
            let undo = Undo::Map {
                x: x.wanted(),
                kept: Vec::new(),
                numbers: x.numbers,
                in_place: false,
            };
            self.push(&output, undo);
        }
        self.release(x);
        output
    }

    /// Dropout of a tensor that others hold, so that it makes a copy.
    pub(super) fn dropout(&mut self, x: Value) -> Value {
        if !self.drops {
            return x;
        }
        let block = self.fresh(x.numbers, Part::Activations);
        let output = self.value(block, x.numbers, x.depth + 1, self.records && x.tracked);
        if output.tracked {
            self.push(&output, Undo::InPlace { x: x.node });
        }
        self.release(x);
        output
    }

    /// The sum, in the place of the first.
    pub(super) fn add(&mut self, x: Value, y: Value) -> Value {
        let inputs: Vec<Node> = [&x, &y].into_iter().filter_map(Value::wanted).collect();
        let tracked = self.records && !inputs.is_empty();
        let block = Rc::clone(&x.block);
        let output = self.value(block, x.numbers, x.depth.max(y.depth) + 1, tracked);
        if tracked {
            self.push(&output, Undo::Same { inputs });
        }
        self.release(x);
        self.release(y);
        output
    }

    /// Attention of one query a row, with layers of `x` for keys and values: neither is made.
    pub(super) fn first_attention(
        &mut self,
        q: Value,
        x: Value,
        [key, value]: [&Linear; 2],
        of: Attention,
    ) -> Value {
        self.lend(of.scores() / of.rows.max(1), of.rows);
        let wide = [key, value].map(|linear| self.widened(linear));
        let tokens = of.rows.saturating_mul(of.keys);
        let low = [key, value].map(|linear| tokens.saturating_mul(linear.rank));
        let kept = [
            low[0],
            low[1],
            of.wide(key.rank),
            of.summed(value.rank),
            of.scores(),
        ];
        let kept = kept.map(|numbers| self.fresh(numbers, Part::Activations));
        let numbers = q.numbers;
        let block = self.fresh(numbers, Part::Activations);
        self.drop_all(wide.into_iter().flatten());
        let own = [key, value]
            .into_iter()
            .any(|linear| linear.weight || linear.rank > 0)
            || value.bias;
        let tracked = self.records && (q.tracked || x.tracked || own);
        let output = self.value(block, numbers, q.depth.max(x.depth) + 1, tracked);
        if tracked {
            let given = [&q, &x].map(|input| Rc::clone(&input.block));
            let undo = Undo::FirstAttention {
                inputs: [q.wanted(), x.wanted()],
                kept: kept.into_iter().chain(given).collect(),
                linears: [*key, *value],
                of,
            };
            self.push(&output, undo);
        } else {
            self.drop_all(kept);
        }
        self.drop_all([q.block, x.block]);
        output
    }

    /// Attention whose queries, keys and values are layers of x.
    pub(super) fn self_attention(
        &mut self,
        x: Value,
        linears: [&Linear; 3],
        of: Attention,
    ) -> Value {
        let rows = of.rows.saturating_mul(of.keys);
        let wide = linears.map(|linear| self.widened(linear));
        let low = linears.map(|linear| self.low(linear, rows));
        let [inputs, outputs] = [linears[0].inputs, linears[0].outputs];
        let numbers = rows.saturating_mul(outputs);
        let mut kept: Vec<Shared> = linears
            .iter()
            .map(|_| self.fresh(numbers, Part::Activations))
            .collect();
        self.pack([rows, inputs, outputs], true, [3, 1]);
        self.drop_all(wide.into_iter().flatten());
        let adapted = linears.iter().any(|linear| linear.rank > 0);
        let trained = linears.iter().any(|linear| linear.weight);
        let biases = linears.iter().any(|linear| linear.bias);
        let tracked = self.records && (x.tracked || adapted || trained || biases);
        let mut kept_low = Vec::new();
        for (linear, low) in linears.into_iter().zip(low) {
            kept_low.push(self.kept_low(low, linear, tracked));
        }
        self.lend(of.scratch(1), of.tasks());
        if tracked && keeps_probabilities(of.scores(), numbers.saturating_mul(2)) {
            kept.push(self.fresh(of.scores(), Part::Activations));
        }
        let block = self.fresh(numbers, Part::Activations);
        let output = self.value(block, numbers, x.depth + 1, tracked);
        if tracked {
            let undo = Undo::SelfAttention {
                x: x.wanted(),
                input: (adapted || trained).then(|| Rc::clone(&x.block)),
                kept,
                low: kept_low,
                linears: linears.map(|linear| *linear),
                numbers,
                of,
            };
            self.push(&output, undo);
        } else {
            self.drop_all(kept);
        }
        self.release(x);
        output
    }

    /// Attention of q, k and v, with tables of positions behind them.
    pub(super) fn attention(&mut self, inputs: Vec<Value>, of: Attention) -> Value {
        self.lend(of.scratch(1), of.tasks());
        let numbers = inputs[0].numbers;
        let deepest = inputs.iter().map(|input| input.depth).max().unwrap_or(0);
        let tracked = self.records && inputs.iter().any(|input| input.tracked);
        let given = inputs[1].numbers.saturating_add(inputs[2].numbers);
        let keeps = tracked && of.span == 0 && keeps_probabilities(of.scores(), given);
        let probabilities = keeps.then(|| self.fresh(of.scores(), Part::Activations));
        let block = self.fresh(numbers, Part::Activations);
        let output = self.value(block, numbers, deepest + 1, tracked);
        if tracked {
            let given = inputs.iter().map(|input| Rc::clone(&input.block));
            let undo = Undo::Attention {
                inputs: inputs.iter().map(Value::wanted).collect(),
                kept: given.chain(probabilities).collect(),
                numbers,
                of,
            };
            self.push(&output, undo);
        }
        self.drop_all(inputs.into_iter().map(|input| input.block));
        output
    }

    /// Rows of a table.
    pub(super) fn table(&mut self, key: Key, numbers: u64, read: u64, of: TableRows) -> Value {
        let block = match of.half {
            false => self.fresh(of.numbers, Part::Activations),
            true => {
                let half = self.fresh(of.numbers / 2, Part::Buffers);
                let block = self.fresh(of.numbers, Part::Activations);
                self.heap.release(half);
                block
            }
        };
        let output = self.value(block, of.numbers, 1, self.records && of.trained);
        if output.tracked {
            self.push(&output, Undo::Table { key, numbers, read });
        }
        output
    }
}
