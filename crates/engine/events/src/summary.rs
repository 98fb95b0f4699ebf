//! What is written of one step: values, each under its tag.

use crate::histogram::Histogram;
use crate::image::Image;
use crate::messages::{self, Kind, Value};

/// The values of a step. TensorBoard groups them by what stands before the first slash of their tags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    values: Vec<Value>,
}

impl Summary {
    /// Adds a number.
    pub fn scalar(&mut self, tag: &str, number: f32) {
        self.add(tag, Kind::Scalar(number));
    }

    /// Adds the distribution of some numbers.
    pub fn histogram(&mut self, tag: &str, histogram: &Histogram) {
        self.add(tag, Kind::Histogram(histogram.to_message()));
    }

    /// Adds an image.
    pub fn image(&mut self, tag: &str, image: &Image) {
        self.add(tag, Kind::Image(image.to_message()));
    }

    /// Adds the values of another summary of the same step.
    pub fn extend(&mut self, other: Summary) {
        self.values.extend(other.values);
    }

    /// Tags of the values, in the order in which they were added.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|value| value.tag.as_str())
    }

    fn add(&mut self, tag: &str, kind: Kind) {
        self.values.push(Value {
            tag: tag.to_owned(),
            kind: Some(kind),
        });
    }

    pub(crate) fn into_message(self) -> messages::Summary {
        let values = self.values;
        messages::Summary { values }
    }
}
