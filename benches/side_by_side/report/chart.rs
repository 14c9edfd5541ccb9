//! The chart: for each workload how many times faster than kernel overlayfs plyfs and fuse-overlayfs 2.0.0 are, on a
//! logarithmic scale, one panel for each way of mounting.

use std::fmt::Write;

use super::text::digits;
use crate::results::{ModeResults, Results, RowResults};

const LABELS: f64 = 330.0;
const PANEL: f64 = 300.0;
const GAP: f64 = 50.0;
const ROW: f64 = 26.0;
const BAR: f64 = 10.0;
const TOP: f64 = 74.0;
/// The ratios at the edges of a panel.
const EDGES: (f64, f64) = (1.0 / 32.0, 32.0);

/// Follows the colours of the page that shows it: dark where the reader prefers it.
const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .small { font-size: 10px; fill: #59636e }
  .title { font-size: 14px; font-weight: 600 }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .one { stroke: #59636e; stroke-width: 1.5 }
  .plyfs { fill: #0a7ea4 }
  .peer { fill: #b8860b }
  .page { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .grid { stroke: #30363d }
    .one { stroke: #9198a1 }
    .plyfs { fill: #4cc2e6 }
    .peer { fill: #e3b341 }
    .page { fill: #0d1117 }
  }
";

/// The chart as SVG.
pub fn chart(results: &Results) -> String {
    let Some(first) = results.modes.first() else { return String::new() };
    let rows: Vec<&RowResults> = first.rows.iter().filter(|row| row.in_chart).collect();
    let width = LABELS + (PANEL + GAP) * results.modes.len() as f64;
    let height = TOP + ROW * rows.len() as f64 + 40.0;
    let mut drawing = Drawing(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n"
    ));
    drawing.text(
        16.0,
        24.0,
        "title",
        "start",
        "Speed against kernel overlayfs (1 = equal, right is faster)",
    );
    drawing.legend();
    for (number, row) in rows.iter().enumerate() {
        let y = row_top(number) + BAR + 3.0;
        drawing.text(LABELS - 12.0, y, "", "end", &row.what);
    }
    for (number, mode) in results.modes.iter().enumerate() {
        drawing.panel(LABELS + (PANEL + GAP) * number as f64, mode, &rows);
    }
    let m = &results.machine;
    let source = format!(
        "scripts/bench, {} run, {}, Linux {}, plyfs {}",
        m.size, m.date, m.kernel, m.commit
    );
    drawing.text(16.0, height - 12.0, "small", "start", &source);
    drawing.0 += "</svg>\n";
    drawing.0
}

fn row_top(number: usize) -> f64 {
    TOP + ROW * number as f64
}

/// How far from the left of a panel a ratio lies.
fn position(ratio: f64) -> f64 {
    let (low, high) = EDGES;
    (ratio.clamp(low, high) / low).ln() / (high / low).ln() * PANEL
}

struct Drawing(String);

impl Drawing {
    fn add(&mut self, element: std::fmt::Arguments) {
        writeln!(self.0, "{element}").unwrap_or_default();
    }

    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn legend(&mut self) {
        for (x, class, name) in [(16.0, "plyfs", "plyfs"), (86.0, "peer", "fuse-overlayfs 2.0.0")] {
            self.add(format_args!(
                "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"10\" class=\"{class}\"/>"
            ));
            self.text(x + 18.0, 47.0, "", "start", name);
        }
    }

    fn panel(&mut self, left: f64, mode: &ModeResults, rows: &[&RowResults]) {
        let bottom = row_top(rows.len());
        self.text(left + PANEL / 2.0, 47.0, "title", "middle", &mode.mode.to_string());
        for power in [-4, -2, 0, 2, 4] {
            let (ratio, class) = (2_f64.powi(power), if power == 0 { "one" } else { "grid" });
            let x = left + position(ratio);
            self.add(format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\" class=\"{class}\"/>",
                TOP - 6.0
            ));
            let label = if power < 0 { format!("1/{}", 1 << -power) } else { ratio.to_string() };
            self.text(x, TOP - 10.0, "small", "middle", &label);
        }
        for (number, row) in rows.iter().enumerate() {
            let Some(row) = mode.rows.iter().find(|other| other.name == row.name) else { continue };
            let top = row_top(number);
            self.bar(left, top, "plyfs", row.ratio_between("kernel", "plyfs"));
            self.bar(
                left,
                top + BAR + 1.0,
                "peer",
                row.ratio_between("kernel", "fuse-overlayfs-2"),
            );
        }
    }

    fn bar(&mut self, left: f64, top: f64, class: &str, ratio: Option<(f64, f64)>) {
        let Some((ratio, _)) = ratio else { return };
        let (one, end) = (left + position(1.0), left + position(ratio));
        let (x, width) = (one.min(end), (one - end).abs().max(1.0));
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\" class=\"{class}\"/>"
        ));
        // A bar that ends at the edge has its figure on the other side of the line.
        let to_the_left = if end < one { end > left + 24.0 } else { end > left + PANEL - 24.0 };
        let near = if to_the_left { end.min(one) } else { end.max(one) };
        let (x, anchor) = if to_the_left { (near - 3.0, "end") } else { (near + 3.0, "start") };
        self.text(x, top + BAR - 1.0, "small", anchor, &digits(ratio));
    }
}
