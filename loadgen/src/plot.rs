//! Plots as SVG, good enough to publish.
//!
//! Two kinds of plot are needed (lines with their spread, and a timeline with marks), and both are a frame, ticks and
//! paths; so they are written by hand instead of with a library of fonts and bitmaps. A figure is one or more panels
//! above one another that share the axis below. Colours are Okabe and Ito's, which colour-blind readers tell apart;
//! dashes and markers say the same once more for print.

use std::fmt::Write as _;

/// Colours of the series, in turn.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];
/// Dashes of the series, in turn.
const DASHES: [&str; 5] = ["none", "7 4", "2 3", "9 3 2 3", "4 2"];
/// Size of a figure with one panel, in pixels, and what each further panel adds.
const WIDTH: f64 = 720.0;
const PANEL: f64 = 260.0;
/// Room for the title and legend above, the axis below, its labels on the left.
const TOP: f64 = 64.0;
const BOTTOM: f64 = 56.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
/// Room between two panels.
const BETWEEN: f64 = 26.0;
/// Distance between the bars of two lines at the same place.
const ASIDE: f64 = 10.0;
/// About how many ticks an axis has.
const TICKS: f64 = 6.0;

/// A point and how far its repetitions spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) low: f64,
    pub(crate) y: f64,
    pub(crate) high: f64,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// A set of lines over one axis of their own.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) y_title: String,
    /// Powers of ten at equal distances, for values that a stall lifts a thousandfold.
    pub(crate) logarithmic: bool,
    pub(crate) series: Vec<Series>,
}

/// Something that happened at `x`, until `end`.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) end: f64,
    pub(crate) label: String,
}

/// A whole figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) x_title: String,
    /// The least and the most on the axis below; where none, what the points have.
    pub(crate) x_range: Option<(f64, f64)>,
    /// What the bars stand for; none are drawn where empty, and no markers either.
    pub(crate) spread: String,
    pub(crate) panels: Vec<Panel>,
    pub(crate) marks: Vec<Mark>,
}

/// An axis from the first to the last of its ticks. All three are exponents of ten where it is logarithmic.
struct Axis {
    logarithmic: bool,
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    /// Covers `from` to `to` with round steps.
    fn covering(from: f64, to: f64) -> Self {
        let span = if to > from { to - from } else { 1.0 };
        let rough = span / TICKS;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|nice| nice * magnitude >= rough * 0.999).unwrap_or(10.0)
            * magnitude;
        let slack = step * 1e-6;
        Self {
            logarithmic: false,
            from: ((from + slack) / step).floor() * step,
            to: ((from + span - slack) / step).ceil() * step,
            step,
        }
    }

    /// Covers `from` to `to`, both above 0, with powers of ten.
    fn decades(from: f64, to: f64) -> Self {
        let (from, to) = (from.log10().floor(), to.log10().ceil());
        Self { logarithmic: true, from, to: to.max(from + 1.0), step: 1.0 }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let (mut next, step, last) = (self.from, self.step, self.to + self.step * 0.5);
        std::iter::from_fn(move || {
            let tick = next;
            next += step;
            (tick < last).then_some(tick)
        })
    }

    /// `tick` with as many decimals as the step needs.
    fn label(&self, tick: f64) -> String {
        if self.logarithmic {
            return format!("{}", 10_f64.powf(tick));
        }
        let decimals = (0..6).find(|digits| {
            let scaled = self.step * 10_f64.powi(*digits);
            (scaled - scaled.round()).abs() < 1e-6 * scaled
        });
        let decimals = usize::try_from(decimals.unwrap_or(6)).unwrap_or(6);
        // Minus zero is what 0 is called after some additions.
        format!("{:.decimals$}", if tick.abs() < self.step * 1e-6 { 0.0 } else { tick })
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }
}

/// Where a panel lies, and its axes.
struct Frame {
    top: f64,
    height: f64,
    /// Room between the frame's sides and the ends of the axis below.
    inset: f64,
    x: Axis,
    y: Axis,
}

impl Frame {
    fn px(&self, x: f64) -> f64 {
        LEFT + self.inset + self.x.share(x) * (WIDTH - LEFT - RIGHT - 2.0 * self.inset)
    }

    fn py(&self, y: f64) -> f64 {
        self.height_of(if self.y.logarithmic { y.log10() } else { y })
    }

    /// Where a tick of the vertical axis lies.
    fn height_of(&self, tick: f64) -> f64 {
        self.top + self.height * (1.0 - self.y.share(tick))
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

impl Figure {
    /// The figure as a standalone SVG document.
    #[must_use]
    pub(crate) fn svg(&self) -> String {
        let panels = crate::report::as_f64(self.panels.len() as u64);
        let height = TOP + panels * PANEL + (panels - 1.0) * BETWEEN + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        text(&mut svg, WIDTH / 2.0, 22.0, "middle", "font-size=\"15\" font-weight=\"bold\"", &self.title);
        self.legend(&mut svg);
        let mut top = TOP;
        for panel in &self.panels {
            let frame = self.frame(panel, top);
            self.marks(&mut svg, &frame);
            axes(&mut svg, &frame, &panel.y_title);
            self.lines(&mut svg, &frame, panel);
            if top == TOP {
                self.mark_labels(&mut svg, &frame);
            }
            top += PANEL + BETWEEN;
        }
        text(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, height - 14.0, "middle", "", &self.x_title);
        svg.push_str("</svg>\n");
        svg
    }

    /// The number that chooses a series' colour and dash: its place among all panels' different names.
    fn style(&self, panel: &Panel, index: usize) -> usize {
        let name = panel.series.get(index).map(|series| series.name.as_str());
        self.names().iter().position(|known| Some(*known) == name).unwrap_or(index)
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if !names.contains(&series.name.as_str()) {
                names.push(&series.name);
            }
        }
        names
    }

    fn frame(&self, panel: &Panel, top: f64) -> Frame {
        let all = self.panels.iter().flat_map(|panel| &panel.series).flat_map(|series| &series.points);
        let (mut left, mut right) = self.x_range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        for point in all {
            (left, right) = (left.min(point.x), right.max(point.x));
        }
        let x = if left.is_finite() { Axis::covering(left, right) } else { Axis::covering(0.0, 1.0) };
        // Bars beside one another need room where the first and the last stand.
        let inset = if self.repeats() { 2.0 * ASIDE } else { 0.0 };
        Frame { top, height: PANEL, inset, x, y: vertical(panel) }
    }

    fn legend(&self, svg: &mut String) {
        let mut x = LEFT;
        for (index, name) in self.names().into_iter().enumerate() {
            let _ = writeln!(svg, "<path d=\"M{x:.1} 42h26\" {}/>", stroke(index, self.repeats()));
            if self.repeats() {
                marker(svg, index, x + 13.0, 42.0);
            }
            text(svg, x + 32.0, 46.0, "start", "", name);
            x += 52.0 + 6.6 * crate::report::as_f64(name.chars().count() as u64);
        }
        if self.repeats() {
            text(svg, WIDTH - RIGHT, 46.0, "end", "fill=\"#555555\"", &self.spread);
        }
    }

    /// Whether the lines show repeated runs, or else a course of time.
    fn repeats(&self) -> bool {
        !self.spread.is_empty()
    }

    fn lines(&self, svg: &mut String, frame: &Frame, panel: &Panel) {
        let middle = (crate::report::as_f64(panel.series.len() as u64) - 1.0) / 2.0;
        for (index, series) in panel.series.iter().enumerate() {
            let style = self.style(panel, index);
            if self.repeats() {
                let aside = (crate::report::as_f64(index as u64) - middle) * ASIDE;
                draw(svg, frame, series, style, aside, true);
            } else {
                draw(svg, frame, series, style, 0.0, false);
            }
        }
    }

    fn marks(&self, svg: &mut String, frame: &Frame) {
        for mark in &self.marks {
            let (from, to) = (frame.px(mark.x), frame.px(mark.end.max(mark.x)));
            let (top, height) = (frame.top, frame.height);
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#e69f00\" \
                 fill-opacity=\"0.18\"/><path d=\"M{from:.1} {top:.1}v{height:.1}\" stroke=\"#b26b00\"/>",
                to - from
            );
        }
    }

    /// Upright, so that neighbours do not cover each other however close they are, and over the lines.
    fn mark_labels(&self, svg: &mut String, frame: &Frame) {
        for (index, mark) in self.marks.iter().enumerate() {
            let (x, y) = (frame.px(mark.x) + 3.0, frame.top + 6.0);
            // First its outline: not every viewer knows `paint-order`.
            for colours in ["fill=\"#ffffff\" stroke=\"#ffffff\" stroke-width=\"3\"", "fill=\"#5c3700\""] {
                let style = format!("transform=\"rotate(90 {x:.1} {y:.1})\" font-size=\"10\" {colours}");
                text(svg, x, y, "start", &style, &format!("{} {}", index + 1, mark.label));
            }
        }
    }
}

fn vertical(panel: &Panel) -> Axis {
    let points = || panel.series.iter().flat_map(|series| &series.points);
    let highest = points().map(|point| point.high).fold(0.0, f64::max);
    if panel.logarithmic && highest > 0.0 {
        let lowest = points().map(|point| point.low).filter(|low| *low > 0.0).fold(highest, f64::min);
        return Axis::decades(lowest, highest);
    }
    // From zero: a cut axis makes small differences look large.
    Axis::covering(0.0, highest)
}

fn axes(svg: &mut String, frame: &Frame, y_title: &str) {
    let (left, right, bottom) = (LEFT, WIDTH - RIGHT, frame.bottom());
    for tick in frame.y.ticks() {
        let y = frame.height_of(tick);
        let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#e4e4e4\"/>");
        text(svg, left - 8.0, y + 4.0, "end", "", &frame.y.label(tick));
    }
    for tick in frame.x.ticks() {
        let x = frame.px(tick);
        let _ = writeln!(svg, "<path d=\"M{x:.1} {bottom:.1}v5\" stroke=\"#333333\"/>");
        text(svg, x, bottom + 19.0, "middle", "", &frame.x.label(tick));
    }
    let top = frame.top;
    let _ = writeln!(svg, "<path d=\"M{left} {top:.1}V{bottom:.1}H{right}\" fill=\"none\" stroke=\"#333333\"/>");
    let middle = top + frame.height / 2.0;
    text(svg, 18.0, middle, "middle", &format!("transform=\"rotate(-90 18 {middle:.1})\""), y_title);
}

/// Draws a line `aside` pixels to the right of where it belongs, so that the bars of two lines do not cover each other.
fn draw(svg: &mut String, frame: &Frame, series: &Series, style: usize, aside: f64, spread: bool) {
    let mut path = String::new();
    let mut pen = 'M';
    for point in &series.points {
        if point.y.is_nan() {
            // Nothing was measured here: a line across would invent it.
            pen = 'M';
            continue;
        }
        let _ = write!(path, "{pen}{:.1} {:.1}", frame.px(point.x) + aside, frame.py(point.y));
        pen = 'L';
    }
    let _ = writeln!(svg, "<path d=\"{path}\" {}/>", stroke(style, spread));
    if !spread {
        return;
    }
    let colour = COLOURS[style % COLOURS.len()];
    for point in &series.points {
        let (x, low, high) = (frame.px(point.x) + aside, frame.py(point.low), frame.py(point.high));
        let (left, right) = (x - 4.0, x + 4.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\" \
             stroke=\"{colour}\" stroke-width=\"1.2\"/>"
        );
        marker(svg, style, x, frame.py(point.y));
    }
}

fn stroke(style: usize, dashed: bool) -> String {
    let colour = COLOURS[style % COLOURS.len()];
    // A course of time has gaps of its own, which dashes would hide.
    let dash = if dashed { DASHES[style % DASHES.len()] } else { "none" };
    format!(
        "fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-linejoin=\"round\" stroke-dasharray=\"{dash}\""
    )
}

fn marker(svg: &mut String, style: usize, x: f64, y: f64) {
    let colour = COLOURS[style % COLOURS.len()];
    let _ = if style.is_multiple_of(2) {
        writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\" fill=\"{colour}\"/>")
    } else {
        writeln!(svg, "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{colour}\"/>", x - 3.5, y - 3.5)
    };
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, attributes: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_ticks_that_cover_its_values() {
        for (from, to, expected) in [
            (0.0, 0.8, vec!["0.0", "0.2", "0.4", "0.6", "0.8"]),
            (0.0, 10.0, vec!["0", "2", "4", "6", "8", "10"]),
            (0.0, 0.037, vec!["0.00", "0.01", "0.02", "0.03", "0.04"]),
            (0.0, 61.0, vec!["0", "20", "40", "60", "80"]),
            (0.0, 0.0, vec!["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ] {
            let axis = Axis::covering(from, to);
            let labels: Vec<String> = axis.ticks().map(|tick| axis.label(tick)).collect();
            assert_eq!(labels, expected, "{from} to {to}");
        }
    }

    #[test]
    fn a_logarithmic_axis_has_a_tick_for_each_power_of_ten() {
        for (from, to, expected) in [
            (0.3, 250.0, vec!["0.1", "1", "10", "100", "1000"]),
            (1.0, 1.0, vec!["1", "10"]),
            (2.0, 3.0, vec!["1", "10"]),
        ] {
            let axis = Axis::decades(from, to);
            let labels: Vec<String> = axis.ticks().map(|tick| axis.label(tick)).collect();
            assert_eq!(labels, expected, "{from} to {to}");
        }
    }

    #[test]
    fn a_figure_names_its_axes_its_lines_and_its_spread() {
        let point = |x, y: f64| Point { x, low: y * 0.9, y, high: y * 1.1 };
        let line = |name: &str| Series { name: name.to_owned(), points: vec![point(0.0, 1.0), point(0.8, 2.0)] };
        let figure = Figure {
            title: "Lookups".to_owned(),
            x_title: "p".to_owned(),
            x_range: Some((0.0, 1.0)),
            spread: "bars: least to most".to_owned(),
            panels: vec![Panel {
                y_title: "latency (ms)".to_owned(),
                logarithmic: false,
                series: vec![line("with <cache>"), line("without")],
            }],
            marks: Vec::new(),
        };
        let svg = figure.svg();
        for part in [
            "Lookups",
            ">p<",
            ">1.0<",
            "bars: least to most",
            "latency (ms)",
            "with &lt;cache&gt;",
            "without",
            "</svg>",
        ] {
            assert!(svg.contains(part), "{part} is missing");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
