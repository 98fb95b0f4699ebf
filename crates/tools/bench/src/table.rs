//! A table in Markdown that can also be read as it stands.

use std::fmt;

/// Rows of cells under headings. The first column is text, the others are numbers.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no rows.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(ToString::to_string).collect();
        Table {
            rows: vec![headings],
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If it has not one cell for each heading.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell a column");
        self.rows.push(cells);
    }

    /// Whether there is nothing under the headings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    fn width(&self, column: usize) -> usize {
        let widths = self.rows.iter().map(|row| row[column].chars().count());
        // A rule has three characters.
        widths.max().unwrap_or(0).max(3)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                match column {
                    0 => write!(f, "| {cell:<width$} ")?,
                    _ => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for column in 0..row.len() {
                    let rule = "-".repeat(self.width(column));
                    write!(f, "| {rule} ")?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// A number for a cell, with as many digits after the point; a dash where there is none.
#[must_use]
pub fn cell(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(&["row", "ms"]);
        assert!(table.is_empty());
        table.row(vec!["short".to_owned(), cell(Some(1234.56), 1)]);
        table.row(vec!["somewhat longer".to_owned(), cell(None, 1)]);
        assert_eq!(
            table.to_string(),
            "| row             |     ms |\n\
             | --------------- | ------ |\n\
             | short           | 1234.6 |\n\
             | somewhat longer |      - |\n"
        );
        assert!(!table.is_empty());
    }
}
