//! The way back over a tape: what the gradients of each operation take, and when what was kept is given back.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use lowburn_kernels::keeps_projected;

use super::heap::{NUMBER, Part, Shared};
use super::kept::{Attention, Gradient, Key, Node, Norm, Product, Step, Undo};
use super::sizes::Linear;
use super::tape::Tape;

/// Groups of a batch's rows whose contributions to a table of positions are summed apart.
const GROUPS: u64 = 4;

impl Tape {
    /// The gradients of all that an output was computed from; `gradient` is its own.
    pub(super) fn backward(&mut self, output: Option<Node>, gradient: Shared) {
        self.give_or_drop(output, gradient);
        let mut steps = std::mem::take(&mut self.steps);
        // The deepest first and of one depth the latest, as Burn's tape.
        steps.reverse();
        steps.sort_by_key(|step| Reverse(step.depth));
        for step in steps {
            self.undo(step);
        }
        self.read_out();
    }

    fn undo(&mut self, step: Step) {
        let gradient = self.gradients.remove(&step.output);
        match (step.undo, gradient) {
            (undo, None) => self.forget(undo),
            (Undo::Linear(product), Some(gradient)) => self.undo_linear(product, gradient),
            (
                Undo::Norm {
                    x,
                    residual,
                    kept,
                    numbers,
                    norm,
                },
                Some(gradient),
            ) => self.undo_norm([x, residual], kept, numbers, norm, gradient),
            (
                Undo::Map {
                    x,
                    kept,
                    numbers,
                    in_place,
                },
                Some(gradient),
            ) => {
                let own = match in_place {
                    true => self.own(gradient),
                    false => {
                        let own = self.fresh(numbers, Part::Activations);
                        self.heap.release(gradient);
                        own
                    }
                };
                self.drop_all(kept);
                self.give_or_drop(x, own);
            }
            (Undo::InPlace { x }, Some(gradient)) => {
                let own = self.own(gradient);
                self.give(x, own);
            }
            (Undo::Same { inputs }, Some(gradient)) => {
                for node in inputs {
                    self.give(node, Rc::clone(&gradient));
                }
                self.heap.release(gradient);
            }
            (
                Undo::Attention {
                    inputs,
                    kept,
                    numbers,
                    of,
                },
                Some(gradient),
            ) => {
                self.undo_attention(&inputs, kept, numbers, of, gradient);
            }
            (
                Undo::SelfAttention {
                    x,
                    input,
                    kept,
                    low,
                    linears,
                    numbers,
                    of,
                },
                Some(gradient),
            ) => {
                self.lend(of.scratch(3), of.tasks());
                let own = [numbers; 3].map(|n| self.fresh(n, Part::Activations));
                self.heap.release(gradient);
                self.drop_all(kept);
                let rows = of.rows.saturating_mul(of.keys);
                let wide = linears.map(|linear| self.widened(&linear));
                let mut passing = Vec::new();
                for (linear, low) in linears.iter().zip(&low) {
                    passing.extend(self.layer_gradients(linear, rows, low.is_some(), false));
                }
                let [inputs, outputs] = [linears[0].inputs, linears[0].outputs];
                let mut adapted = linears.iter().filter(|linear| linear.rank > 0).skip(1);
                // What a large rank's adapter hands back is made apart before it is added.
                let apart = adapted.any(|linear| !keeps_projected(linear.rank));
                let sum = x.map(|node| {
                    let numbers = rows.saturating_mul(inputs);
                    let sum = self.fresh(numbers, Part::Activations);
                    if apart {
                        self.heap.pass(numbers.saturating_mul(NUMBER));
                    }
                    self.pack([rows, outputs, inputs], false, [1, 3]);
                    (node, sum)
                });
                self.drop_all(passing);
                self.drop_all(wide.into_iter().flatten());
                self.drop_all(own);
                self.drop_all(input);
                self.drop_all(low.into_iter().flatten());
                if let Some((node, sum)) = sum {
                    self.give(node, sum);
                }
            }
            (
                Undo::FirstAttention {
                    inputs,
                    kept,
                    linears,
                    of,
                },
                Some(gradient),
            ) => self.undo_first_attention(inputs, kept, &linears, of, gradient),
            (Undo::Table { key, numbers, read }, Some(gradient)) => {
                let [bytes, written] = [numbers, read].map(|n| n.saturating_mul(NUMBER));
                let block = self.heap.take_zeroed(bytes, written, Part::Gradients);
                self.add_trained(
                    key,
                    Gradient {
                        block,
                        copied: true,
                    },
                );
                self.heap.release(gradient);
            }
        }
    }

    /// No gradient came: what was kept goes.
    fn forget(&mut self, undo: Undo) {
        match undo {
            Undo::Linear(product) => {
                self.drop_all(product.input);
                self.drop_all(product.low);
                self.drop_all(product.matrix);
            }
            Undo::SelfAttention {
                input, kept, low, ..
            } => {
                self.drop_all(input);
                self.drop_all(kept);
                self.drop_all(low.into_iter().flatten());
            }
            Undo::Norm { kept, .. }
            | Undo::Map { kept, .. }
            | Undo::Attention { kept, .. }
            | Undo::FirstAttention { kept, .. } => {
                self.drop_all(kept);
            }
            Undo::InPlace { .. } | Undo::Same { .. } | Undo::Table { .. } => {}
        }
    }

    /// The gradients of a layer's own parameters, and what is held until that of its input is there. `low`: the adapter's projection was
    /// kept; `copied`: the weight's gradient goes back through what made the weight.
    fn layer_gradients(
        &mut self,
        linear: &Linear,
        rows: u64,
        low: bool,
        copied: bool,
    ) -> Vec<Shared> {
        let [inputs, outputs, rank] = [linear.inputs, linear.outputs, linear.rank];
        let mut passing = Vec::new();
        if rank > 0 {
            passing.push(self.fresh(rows.saturating_mul(rank), Part::Buffers));
            let dropped = self.dropped(linear, rows);
            let low = (!low).then(|| self.fresh(rows.saturating_mul(rank), Part::Buffers));
            self.trained_gradient(Key::FactorB(linear.id), outputs.saturating_mul(rank), false);
            self.drop_all(low);
            self.trained_gradient(Key::FactorA(linear.id), inputs.saturating_mul(rank), false);
            self.drop_all(dropped);
            passing.push(self.fresh(inputs.saturating_mul(rank), Part::Buffers));
        }
        if linear.weight {
            let numbers = inputs.saturating_mul(outputs);
            self.trained_gradient(Key::Weight(linear.id), numbers, copied);
            self.pack([inputs, rows, outputs], false, [1, 1]);
        }
        passing
    }

    fn undo_linear(&mut self, product: Product, gradient: Shared) {
        let (linear, rows) = (product.linear, product.rows);
        let wide = self.widened(&linear);
        // A weight that was made for the product gives its gradient back through what made it.
        let copied = product.matrix.is_some();
        let passing = self.layer_gradients(&linear, rows, product.low.is_some(), copied);
        let own = product.x.map(|node| {
            let own = self.fresh(rows.saturating_mul(linear.inputs), Part::Activations);
            self.pack([rows, linear.outputs, linear.inputs], false, [1, 1]);
            (node, own)
        });
        self.drop_all(passing);
        self.drop_all(wide);
        self.heap.release(gradient);
        self.drop_all(product.input);
        self.drop_all(product.low);
        self.drop_all(product.matrix);
        if let Some((node, own)) = own {
            self.give(node, own);
        }
    }

    fn undo_norm(
        &mut self,
        [x, residual]: [Option<Node>; 2],
        kept: Vec<Shared>,
        numbers: u64,
        norm: Norm,
        gradient: Shared,
    ) {
        if x.is_none() && residual.is_none() && !norm.bias {
            self.heap.release(gradient);
            self.drop_all(kept);
            return;
        }
        let mut own = self.fresh(numbers, Part::Activations);
        self.heap.release(gradient);
        self.drop_all(kept);
        if let Some(node) = residual {
            self.give(node, Rc::clone(&own));
        }
        if x.is_none() && !norm.bias {
            self.heap.release(own);
            return;
        }
        if norm.drops {
            own = self.own(own);
        }
        self.give_or_drop(x, own);
    }

    fn undo_attention(
        &mut self,
        inputs: &[Option<Node>],
        kept: Vec<Shared>,
        numbers: u64,
        of: Attention,
        gradient: Shared,
    ) {
        self.lend(of.scratch(3), of.tasks());
        let (content, tables) = inputs.split_at(3);
        let wanted: Vec<Node> = tables.iter().copied().flatten().collect();
        let table = of.span.saturating_mul(of.hidden);
        let groups = of.rows.div_ceil(of.rows.div_ceil(GROUPS).max(1));
        let mut partial = Vec::new();
        for _ in &wanted {
            partial.push(self.fresh(groups.saturating_mul(table), Part::Buffers));
        }
        let keys = of.rows.saturating_mul(of.keys).saturating_mul(of.hidden);
        let own = [numbers, keys, keys].map(|n| self.fresh(n, Part::Activations));
        let mut sums = Vec::new();
        for _ in &wanted {
            sums.push(self.fresh(table, Part::Activations));
        }
        self.drop_all(partial);
        self.heap.release(gradient);
        self.drop_all(kept);
        for (node, own) in content.iter().zip(own) {
            self.give_or_drop(*node, own);
        }
        for (node, sum) in wanted.into_iter().zip(sums) {
            self.give(node, sum);
        }
    }

    fn undo_first_attention(
        &mut self,
        inputs: [Option<Node>; 2],
        kept: Vec<Shared>,
        linears: &[Linear; 2],
        of: Attention,
        gradient: Shared,
    ) {
        let [key, value] = linears;
        let tokens = of.rows.saturating_mul(of.keys);
        let mut passing: Vec<Shared> = Vec::new();
        for linear in linears {
            passing.extend(self.widened(linear));
            passing.push(self.fresh(tokens.saturating_mul(linear.rank), Part::Buffers));
        }
        for numbers in [
            of.summed(value.rank),
            of.scores(),
            of.scores(),
            of.wide(key.rank),
        ] {
            passing.push(self.fresh(numbers, Part::Buffers));
        }
        let numbers = [of.rows, tokens].map(|rows| rows.saturating_mul(of.hidden));
        let [query, x] = inputs;
        let query = query.map(|node| (node, self.fresh(numbers[0], Part::Activations)));
        for linear in linears {
            let [inputs, outputs] = [linear.inputs, linear.outputs];
            if linear.weight {
                let numbers = inputs.saturating_mul(outputs);
                self.trained_gradient(Key::Weight(linear.id), numbers, false);
            }
            if linear.rank > 0 {
                let dropped = self.dropped(linear, tokens);
                let factors = [inputs, outputs].map(|n| n.saturating_mul(linear.rank));
                self.trained_gradient(Key::FactorA(linear.id), factors[0], false);
                self.drop_all(dropped);
                self.trained_gradient(Key::FactorB(linear.id), factors[1], false);
            }
        }
        let x = x.map(|node| (node, self.fresh(numbers[1], Part::Activations)));
        self.drop_all(passing);
        self.heap.release(gradient);
        self.drop_all(kept);
        for (node, own) in [query, x].into_iter().flatten() {
            self.give(node, own);
        }
    }

    /// Adds a gradient to that of a tensor, in the place of one of the two.
    fn give(&mut self, node: Node, gradient: Shared) {
        let sum = match self.gradients.remove(&node) {
            None => gradient,
            Some(before) if Rc::strong_count(&gradient) == 1 => {
                self.heap.release(before);
                gradient
            }
            Some(before) => {
                self.heap.release(gradient);
                self.own(before)
            }
        };
        self.gradients.insert(node, sum);
    }

    fn give_or_drop(&mut self, node: Option<Node>, gradient: Shared) {
        match node {
            Some(node) => self.give(node, gradient),
            None => self.heap.release(gradient),
        }
    }

    /// Memory with one holder: itself, or a copy where there are others.
    fn own(&mut self, shared: Shared) -> Shared {
        if Rc::strong_count(&shared) == 1 {
            return shared;
        }
        let copy = self.heap.take(shared.bytes, Part::Activations);
        self.heap.release(shared);
        Rc::new(copy)
    }

    fn trained_gradient(&mut self, key: Key, numbers: u64, copied: bool) {
        let bytes = numbers.saturating_mul(NUMBER);
        let block = self.heap.take(bytes, Part::Gradients);
        self.add_trained(key, Gradient { block, copied });
    }

    /// A gradient of what is trained; the second of one parameter is added to the first.
    fn add_trained(&mut self, key: Key, gradient: Gradient) {
        match self.trained.entry(key) {
            Entry::Occupied(_) => self.heap.give(gradient.block),
            Entry::Vacant(place) => {
                place.insert(gradient);
            }
        }
    }

    /// Gradients leave the graph and are added to those of an earlier pass. Those that were not made as numbers in one
    /// piece are copied.
    fn read_out(&mut self) {
        for (key, mut gradient) in std::mem::take(&mut self.trained) {
            if gradient.copied {
                let copy = self.heap.take(gradient.block.bytes, Part::Gradients);
                self.heap.give(std::mem::replace(&mut gradient.block, copy));
            }
            match self.sum.entry(key) {
                Entry::Occupied(_) => self.heap.give(gradient.block),
                Entry::Vacant(place) => {
                    place.insert(gradient);
                }
            }
        }
    }
}
