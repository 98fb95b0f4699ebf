//! What was measured.

use serde::Serialize;

use crate::figures::Figures;
use crate::statistics::{median, smallest};

/// One measurement of one row.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Counted from 1.
    pub round: u32,
    /// Name of the row.
    pub row: String,
    /// What was measured.
    pub figures: Figures,
}

/// A measurement that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// Counted from 1.
    pub round: u32,
    /// Name of the row.
    pub row: String,
    /// Why.
    pub reason: String,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// In order of time.
    pub measurements: Vec<Measurement>,
    /// What is missing among them.
    pub failed: Vec<Failed>,
}

impl Results {
    /// The median over the rounds of a figure of a row; `None` if it was never measured.
    #[must_use]
    pub fn median(&self, row: &str, figure: &str) -> Option<f64> {
        median(&self.all(row, figure))
    }

    /// The smallest over the rounds.
    #[must_use]
    pub fn smallest(&self, row: &str, figure: &str) -> Option<f64> {
        smallest(&self.all(row, figure))
    }

    /// The median over the rounds of a figure of a row divided by that of another row in the same
    /// round, which the machine's drift leaves alone.
    #[must_use]
    pub fn ratio(&self, row: &str, of: &str, figure: &str) -> Option<f64> {
        let in_round = |row: &str, round| {
            let mut all = self.measurements.iter();
            let measurement = all.find(|it| it.row == row && it.round == round)?;
            measurement.figures.get(figure)
        };
        let of_row = self.measurements.iter().filter(|it| it.row == row);
        let ratios = of_row.filter_map(|it| {
            let number = it.figures.get(figure)?;
            Some(number / in_round(of, it.round)?)
        });
        median(&ratios.collect::<Vec<f64>>())
    }

    fn all(&self, row: &str, figure: &str) -> Vec<f64> {
        let of_row = self.measurements.iter().filter(|it| it.row == row);
        of_row.filter_map(|it| it.figures.get(figure)).collect()
    }
}
