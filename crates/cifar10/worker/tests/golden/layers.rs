//! Single layers and their gradients.

use cifar_worker::model::{Model, max_pool};
use tch::{Device, TchError, Tensor};

use crate::fixture::{Fixture, read, relative_distance};

/// Runs `layer` on `x` of the fixture (NHWC) and compares its output with `y` and its gradient,
/// given `g` upstream, with `dx`.
fn check(
    fixture: &Fixture<'_>,
    prefix: &str,
    tolerance: f64,
    layer: impl Fn(&Tensor) -> Result<Tensor, TchError>,
) {
    let name = |tensor: &str| format!("{prefix}{tensor}");
    let tensor =
        |of: &str| Tensor::from_slice(&fixture.f32(&name(of))).reshape(fixture.shape(&name(of)));
    let x = tensor("x").set_requires_grad(true);
    let y = layer(&x.permute([0, 3, 1, 2]))
        .unwrap()
        .permute([0, 2, 3, 1]);
    let dx = Tensor::run_backward(
        &[(&y * tensor("g")).sum(tch::Kind::Float)],
        &[&x],
        false,
        false,
    );
    for (found, expected) in [(&y, "y"), (&dx[0], "dx")] {
        let found = Vec::<f32>::try_from(found.contiguous().view(-1)).unwrap();
        let distance = relative_distance(&found, &fixture.f32(&name(expected)));
        assert!(distance < tolerance, "{prefix}{expected}: {distance:e}");
    }
}

/// Two f32 computations of a nine-term sum and a power differ by a few roundings of 6e-8.
#[test]
fn local_response_normalization_is_tensorflows() {
    let bytes = read("lrn/lrn.safetensors");
    let model = Model::new(Device::Cpu).unwrap();
    check(&Fixture::new(&bytes), "", 1e-6, |x| {
        model.local_response_normalization(x)
    });
}

/// Pooling only chooses; the gradient sums at most four numbers.
#[test]
fn max_pooling_pads_as_tensorflow_does() {
    let bytes = read("max_pool/max_pool.safetensors");
    for prefix in ["pool1/", "pool2/"] {
        check(&Fixture::new(&bytes), prefix, 1e-6, max_pool);
    }
}
