//! Unfolded rows: what lies where, and equality with the composed operation.

mod common;

use burn::tensor::{Device, Tensor};
use common::{NoGrad, compare, random};
use lowburn_kernels::{composed, unfold_rows};

#[test]
fn neighbours_lie_side_by_side_and_rows_do_not_meet() {
    let x = Tensor::<2>::from_data([[1.0], [2.0], [3.0], [4.0], [5.0]], &Device::flex());
    let expected = [
        [0., 1., 2.],
        [1., 2., 3.],
        [2., 3., 0.],
        [0., 4., 5.],
        [4., 5., 0.],
    ];
    for y in [
        unfold_rows(x.clone(), &[3, 2], 3),
        composed::unfold_rows(x.clone(), &[3, 2], 3),
    ] {
        let y = y.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(y, expected.concat());
    }
}

#[test]
fn equals_composed() {
    let lengths = [7, 1, 0, 12, 2];
    let x = random([22, 5], 1);
    for width in [1, 3, 5, 9] {
        compare!(
            format!("unfold {width}"),
            [x],
            unfold_rows(x.clone(), &lengths, width),
            composed::unfold_rows(x.clone(), &lengths, width)
        );
    }
    let frozen = x.no_grad();
    let y = unfold_rows(frozen.clone(), &lengths, 3).into_data();
    assert_eq!(y, composed::unfold_rows(frozen, &lengths, 3).into_data());
}

#[test]
#[should_panic(expected = "is odd")]
fn an_even_width_is_refused() {
    unfold_rows(random([4, 2], 1), &[4], 2);
}

#[test]
#[should_panic(expected = "tokens of x")]
fn wrong_lengths_are_refused() {
    unfold_rows(random([4, 2], 1), &[2, 1], 3);
}
