//! The tables of results: medians of rounds.

use crate::took::Took;

/// One kind of run, again and again.
pub(crate) struct Row {
    what: &'static str,
    hosts: usize,
    theirs: Vec<Took>,
    ours: Vec<Took>,
}

impl Row {
    pub(crate) fn new(what: &'static str, hosts: usize) -> Self {
        Self { what, hosts, theirs: Vec::new(), ours: Vec::new() }
    }

    /// What one round showed.
    pub(crate) fn add(&mut self, theirs: Took, ours: Took) {
        self.theirs.push(theirs);
        self.ours.push(ours);
    }

    /// The ratio is the median of the rounds' ratios.
    pub(crate) fn print(self) {
        let wall = |took: &Took| took.wall.as_secs_f64();
        let ratios = self.theirs.iter().zip(&self.ours);
        let ratios = ratios.map(|(theirs, ours)| wall(theirs) / wall(ours));
        println!(
            "| {:<24} | {:>5} | {:>6} | {:>9.2} | {:>9} | {:>8.2} | {:>8} | {:>5.1} |",
            self.what,
            self.hosts,
            self.ours.len(),
            median(self.theirs.iter().map(wall)),
            cpu(&self.theirs),
            median(self.ours.iter().map(wall)),
            cpu(&self.ours),
            median(ratios),
        );
    }
}

/// Prints the head of a table of what `other` takes and what we take.
pub(crate) fn head(other: &str) {
    println!(
        "| {:<24} | hosts | rounds | {other:>7} s |     CPU s |   ours s |    CPU s |     × |",
        "run"
    );
    println!(
        "|:-------------------------|------:|-------:|----------:|----------:|---------:|---------:|------:|"
    );
}

fn cpu(all: &[Took]) -> String {
    let all: Option<Vec<f64>> = all.iter().map(|took| Some(took.cpu?.as_secs_f64())).collect();
    all.map_or_else(|| "-".to_owned(), |all| format!("{:.2}", median(all)))
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
