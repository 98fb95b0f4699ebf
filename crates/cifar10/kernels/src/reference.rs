//! The same network by definition: plain loops in f64, one image at a time, for the tests of the kernels.

use crate::buffer::tests::in_f64;
use crate::shape::{BORDER, CHANNELS, FEATURES, FILTER, IMAGE, IMAGE_VALUES, POOLED};
use crate::variables::{CLASSES, LOCAL3, LOCAL4, split};

/// A convolution 5x5, SAME: `x` of `[size][size][inputs]` with `w` of `[5][5][inputs][64]`.
pub(crate) fn convolution(x: &[f64], w: &[f64], size: usize, inputs: usize) -> Vec<f64> {
    let mut y = vec![0.0; size * size * CHANNELS];
    each_pair(size, |result, input, tap| {
        for c in 0..inputs {
            for o in 0..CHANNELS {
                y[result * CHANNELS + o] +=
                    x[input * inputs + c] * w[(tap * inputs + c) * CHANNELS + o];
            }
        }
    });
    y
}

/// Its gradients: of `x` and of `w`.
pub(crate) fn convolution_gradients(
    x: &[f64],
    w: &[f64],
    dy: &[f64],
    size: usize,
    inputs: usize,
) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    each_pair(size, |result, input, tap| {
        for c in 0..inputs {
            for o in 0..CHANNELS {
                let (x_at, w_at) = (input * inputs + c, (tap * inputs + c) * CHANNELS + o);
                dx[x_at] += dy[result * CHANNELS + o] * w[w_at];
                dw[w_at] += dy[result * CHANNELS + o] * x[x_at];
            }
        }
    });
    (dx, dw)
}

/// Every pixel of the result with every pixel of the input under the filter, and the place of the
/// filter that is over it.
fn each_pair(size: usize, mut pair: impl FnMut(usize, usize, usize)) {
    for (row, column) in places(size, size) {
        for (r, s) in places(FILTER, FILTER) {
            let (y, x) = (row + r, column + s);
            let inside = BORDER..size + BORDER;
            if inside.contains(&y) && inside.contains(&x) {
                pair(
                    row * size + column,
                    (y - BORDER) * size + x - BORDER,
                    r * FILTER + s,
                );
            }
        }
    }
}

fn places(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |row| (0..width).map(move |column| (row, column)))
}

/// Max-pooling 3x3 of stride 2: the largest of each window, and where in `x` it is.
pub(crate) fn max_pool(x: &[f64], size: usize) -> (Vec<f64>, Vec<usize>) {
    let mut largest = Vec::new();
    let mut winners = Vec::new();
    for (row, column) in places(size / 2, size / 2) {
        for channel in 0..CHANNELS {
            let window = places(3, 3).map(|(r, s)| (2 * row + r, 2 * column + s));
            let window = window.filter(|(y, x)| *y < size && *x < size);
            let at = |(y, x): (usize, usize)| (y * size + x) * CHANNELS + channel;
            // The first of the largest.
            let winner = window
                .map(at)
                .reduce(|best, next| if x[next] > x[best] { next } else { best });
            let winner = winner.expect("a window has pixels");
            largest.push(x[winner]);
            winners.push(winner);
        }
    }
    (largest, winners)
}

pub(crate) fn max_pool_gradient(dy: &[f64], winners: &[usize], size: usize) -> Vec<f64> {
    let mut dx = vec![0.0; size * size * CHANNELS];
    for (dy, winner) in dy.iter().zip(winners) {
        dx[*winner] += dy;
    }
    dx
}

const ALPHA: f64 = 0.001 / 9.0;

fn neighbours(channel: usize) -> std::ops::Range<usize> {
    channel.saturating_sub(4)..(channel + 5).min(CHANNELS)
}

fn lrn_scales(x: &[f64]) -> Vec<f64> {
    let scale =
        |pixel: &[f64], c| 1.0 + ALPHA * pixel[neighbours(c)].iter().map(|x| x * x).sum::<f64>();
    x.chunks(CHANNELS)
        .flat_map(|pixel| (0..CHANNELS).map(move |c| scale(pixel, c)))
        .collect()
}

pub(crate) fn lrn(x: &[f64]) -> Vec<f64> {
    x.iter()
        .zip(lrn_scales(x))
        .map(|(x, s)| x * s.powf(-0.75))
        .collect()
}

pub(crate) fn lrn_gradient(x: &[f64], dy: &[f64]) -> Vec<f64> {
    let s = lrn_scales(x);
    let mut dx = Vec::new();
    for i in 0..x.len() {
        let pixel = i / CHANNELS * CHANNELS;
        let sum: f64 = neighbours(i % CHANNELS)
            .map(|k| pixel + k)
            .map(|k| dy[k] * x[k] * s[k].powf(-1.75))
            .sum();
        dx.push(dy[i] * s[i].powf(-0.75) - 1.5 * ALPHA * x[i] * sum);
    }
    dx
}

fn add_biases(x: &mut [f64], biases: &[f64]) {
    for (index, x) in x.iter_mut().enumerate() {
        *x += biases[index % biases.len()];
    }
}

fn relu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x.max(0.0)).collect()
}

fn relu_gradient(y: &[f64], dy: &[f64]) -> Vec<f64> {
    y.iter()
        .zip(dy)
        .map(|(y, dy)| if *y > 0.0 { *dy } else { 0.0 })
        .collect()
}

/// Adds `x` to `sums`, a row of as many numbers at a time.
fn add_rows(x: &[f64], sums: &mut [f64]) {
    for (index, x) in x.iter().enumerate() {
        sums[index % sums.len()] += x;
    }
}

/// A fully connected layer of one example.
fn linear(x: &[f64], w: &[f64], biases: &[f64]) -> Vec<f64> {
    let mut y = biases.to_vec();
    for (x, row) in x.iter().zip(w.chunks(biases.len())) {
        for (y, w) in y.iter_mut().zip(row) {
            *y += x * w;
        }
    }
    y
}

/// Adds the gradients of the weights; that of `x`.
fn linear_gradients(x: &[f64], w: &[f64], dy: &[f64], dw: &mut [f64]) -> Vec<f64> {
    for (x, row) in x.iter().zip(dw.chunks_mut(dy.len())) {
        for (dw, dy) in row.iter_mut().zip(dy) {
            *dw += x * dy;
        }
    }
    w.chunks(dy.len())
        .map(|row| row.iter().zip(dy).map(|(w, dy)| w * dy).sum())
        .collect()
}

/// Losses and gradients of all variables for a batch.
pub(crate) fn gradients(variables: &[f32], images: &[f32], labels: &[u8]) -> ([f64; 2], Vec<f64>) {
    let (trunk, head) = split(variables);
    let wide = in_f64;
    let layers = [
        trunk.conv1,
        trunk.conv2,
        head.local3,
        head.local4,
        head.softmax_linear,
    ];
    let weights = layers.map(|layer| wide(layer.weights));
    let biases = layers.map(|layer| wide(layer.biases));
    let mut dw = weights.clone().map(|w| vec![0.0; w.len()]);
    let mut db = biases.clone().map(|b| vec![0.0; b.len()]);
    let mut cross_entropy = 0.0;
    let batch_size = labels.len() as f64;
    for (image, label) in images.chunks(IMAGE_VALUES).zip(labels) {
        let image = wide(image);
        let mut c1 = convolution(&image, &weights[0], IMAGE, 3);
        add_biases(&mut c1, &biases[0]);
        let (pooled, winners1) = max_pool(&c1, IMAGE);
        let p1 = relu(&pooled);
        let n1 = lrn(&p1);
        let mut c2 = convolution(&n1, &weights[1], POOLED, CHANNELS);
        add_biases(&mut c2, &biases[1]);
        let r2 = relu(&c2);
        let (features, winners2) = max_pool(&lrn(&r2), POOLED);
        assert_eq!(features.len(), FEATURES);
        let h3 = relu(&linear(&features, &weights[2], &biases[2]));
        let h4 = relu(&linear(&h3, &weights[3], &biases[3]));
        let logits = linear(&h4, &weights[4], &biases[4]);
        assert_eq!(
            [h3.len(), h4.len(), logits.len()],
            [LOCAL3, LOCAL4, CLASSES]
        );

        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let label = usize::from(*label);
        cross_entropy += (total.ln() - logits[label]) / batch_size;
        let one_hot = |class| if class == label { 1.0 } else { 0.0 };
        let g5: Vec<f64> = logits
            .iter()
            .enumerate()
            .map(|(class, logit)| (logit.exp() / total - one_hot(class)) / batch_size)
            .collect();
        add_rows(&g5, &mut db[4]);
        let g4 = relu_gradient(&h4, &linear_gradients(&h4, &weights[4], &g5, &mut dw[4]));
        add_rows(&g4, &mut db[3]);
        let g3 = relu_gradient(&h3, &linear_gradients(&h3, &weights[3], &g4, &mut dw[3]));
        add_rows(&g3, &mut db[2]);
        let d_features = linear_gradients(&features, &weights[2], &g3, &mut dw[2]);
        let d_normalized = max_pool_gradient(&d_features, &winners2, POOLED);
        let d_c2 = relu_gradient(&r2, &lrn_gradient(&r2, &d_normalized));
        add_rows(&d_c2, &mut db[1]);
        let (d_n1, dw2) = convolution_gradients(&n1, &weights[1], &d_c2, POOLED, CHANNELS);
        let d_pooled = relu_gradient(&p1, &lrn_gradient(&p1, &d_n1));
        add_rows(&d_pooled, &mut db[0]);
        let d_c1 = max_pool_gradient(&d_pooled, &winners1, IMAGE);
        let (_, dw1) = convolution_gradients(&image, &weights[0], &d_c1, IMAGE, 3);
        add_rows(&dw1, &mut dw[0]);
        add_rows(&dw2, &mut dw[1]);
    }
    let mut total = cross_entropy;
    for layer in [2, 3] {
        for (dw, w) in dw[layer].iter_mut().zip(&weights[layer]) {
            *dw += 0.004 * w;
            total += 0.002 * w * w;
        }
    }
    let layers = dw.into_iter().zip(db);
    let gradients = layers
        .flat_map(|(dw, db)| dw.into_iter().chain(db))
        .collect();
    ([cross_entropy, total], gradients)
}
