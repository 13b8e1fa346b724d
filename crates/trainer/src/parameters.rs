//! The parameters of a model by name: what is trained, its gradients, and moving it.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Param};
use burn::tensor::{Gradients as Graph, Tensor, TensorData};
use lowburn_models::{
    NamedMapper, NamedVisitor, SequenceClassifier, is_head, is_transposed, map_named, visit_named,
};

use crate::optimizer::Gradients;
use crate::record::ParameterCounts;
use crate::state::NamedTensor;

/// A model that can be replaced as a whole, because Burn maps modules by value.
pub(crate) struct Slot(Option<SequenceClassifier>);

impl Slot {
    pub(crate) fn new(model: SequenceClassifier) -> Self {
        Self(Some(model))
    }

    pub(crate) fn get(&self) -> &SequenceClassifier {
        self.0
            .as_ref()
            .expect("the model is away only inside `replace`")
    }

    /// Puts what `change` makes of the model in its place. No second copy of the model is alive
    /// meanwhile, so that parameters may be changed where they are.
    fn replace(&mut self, change: impl FnOnce(SequenceClassifier) -> SequenceClassifier) {
        self.0 = self.0.take().map(change);
    }

    /// Lets `change` see and write the values of every trainable parameter.
    pub(crate) fn update(&mut self, change: impl FnMut(&str, &mut [f32])) {
        self.replace(|model| map_named(model, &mut Update { change }));
    }

    /// Puts saved values into the trainable parameters, all of them.
    ///
    /// # Errors
    /// When a name is missing or extra, or a shape is another one; nothing is changed then.
    pub(crate) fn restore(&mut self, saved: &BTreeMap<String, NamedTensor>) -> Result<(), String> {
        check_names(&values(self.get()), saved)?;
        self.update(|name, values| values.copy_from_slice(&saved[name].values));
        Ok(())
    }
}

fn check_names(here: &[NamedTensor], saved: &BTreeMap<String, NamedTensor>) -> Result<(), String> {
    for tensor in here {
        let Some(found) = saved.get(&tensor.name) else {
            return Err(format!("the saved state has no {}", tensor.name));
        };
        if found.shape != tensor.shape {
            return Err(format!(
                "{} is {:?} in the saved state and {:?} in the model",
                tensor.name, found.shape, tensor.shape
            ));
        }
    }
    let names: BTreeSet<_> = here.iter().map(|tensor| tensor.name.as_str()).collect();
    match saved.keys().find(|name| !names.contains(name.as_str())) {
        Some(extra) => Err(format!(
            "the saved state has {extra}, the model does not train it"
        )),
        None => Ok(()),
    }
}

struct Update<F> {
    change: F,
}

impl<F: FnMut(&str, &mut [f32])> NamedMapper for Update<F> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_require_grad() {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let device = tensor.device();
        let shape = tensor.dims();
        let mut values = numbers(tensor.inner().into_data());
        (self.change)(name, &mut values);
        let tensor = Tensor::from_data(TensorData::new(values, shape), &device).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// The values of a tensor as 32-bit numbers, without a copy where they are that already.
pub(crate) fn numbers(data: TensorData) -> Vec<f32> {
    data.convert::<f32>()
        .try_into_vec()
        .expect("data just converted to f32 are f32")
}

/// Adds the gradients of one backward pass to the sum.
pub(crate) fn collect(model: &SequenceClassifier, graph: &mut Graph, sum: &mut Gradients) {
    struct Collect<'a> {
        graph: &'a mut Graph,
        sum: &'a mut Gradients,
    }
    impl NamedVisitor for Collect<'_> {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad_remove(self.graph) {
                self.sum.add(name, numbers(gradient.into_data()));
            }
        }
    }
    visit_named(model, &mut Collect { graph, sum });
}

/// The values of every trainable parameter, in the layout they have in memory.
pub(crate) fn values(model: &SequenceClassifier) -> Vec<NamedTensor> {
    struct Values(Vec<NamedTensor>);
    impl NamedVisitor for Values {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            if tensor.is_require_grad() {
                self.0.push(NamedTensor {
                    name: name.to_owned(),
                    shape: tensor.dims().to_vec(),
                    values: numbers(tensor.inner().into_data()),
                });
            }
        }
    }
    let mut values = Values(Vec::new());
    visit_named(model, &mut values);
    values.0
}

/// The model without anything that records gradients; tensors are shared.
pub(crate) fn without_gradients(model: &SequenceClassifier) -> SequenceClassifier {
    model.valid()
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParameterInfo {
    /// The Hugging Face name.
    pub(crate) name: String,
    /// Extents as in a checkpoint.
    pub(crate) shape: Vec<usize>,
    /// Whether it is trained.
    pub(crate) trainable: bool,
}

/// All parameters in the order of the model.
pub(crate) fn list(model: &SequenceClassifier) -> Vec<ParameterInfo> {
    struct List(Vec<ParameterInfo>);
    impl NamedVisitor for List {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            let mut shape = param.lazy_shape().to_vec();
            if is_transposed(name, D) {
                shape.reverse();
            }
            self.0.push(ParameterInfo {
                name: name.to_owned(),
                shape,
                trainable: param.val().is_require_grad(),
            });
        }
    }
    let mut list = List(Vec::new());
    visit_named(model, &mut list);
    list.0
}

/// Numbers of parameters by what they are.
pub(crate) fn count(model: &SequenceClassifier) -> ParameterCounts {
    let mut counts = ParameterCounts::default();
    for parameter in list(model) {
        let size: usize = parameter.shape.iter().product();
        counts.total += size;
        if parameter.trainable {
            counts.trainable += size;
        }
        if parameter.name.contains(".lora_") {
            counts.adapter += size;
        } else if is_head(&parameter.name) {
            counts.head += size;
        }
    }
    counts
}
