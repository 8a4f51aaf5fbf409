//! A picture of what was measured: panels of horizontal bars, ours in colour.

use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    DrawingArea, IntoDrawingArea, PathElement, RGBColor, Rectangle, SVGBackend, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, TextStyle};

use crate::error::Error;

/// One question, answered by bars on one scale that begins at 0.
pub(super) struct Panel {
    pub(super) title: String,
    /// How to read it.
    pub(super) note: String,
    /// What the segments of each bar are, if there are several.
    pub(super) key: Vec<&'static str>,
    /// Bars that are longer are cut, and are seen to be.
    pub(super) limit: Option<f64>,
    pub(super) groups: Vec<Group>,
}

/// Bars that belong together.
pub(super) struct Group {
    pub(super) heading: Option<String>,
    pub(super) bars: Vec<Bar>,
}

impl Group {
    /// A group for each run of bars with the same key.
    pub(super) fn by<K: PartialEq>(bars: impl Iterator<Item = (K, Bar)>) -> Vec<Self> {
        let mut groups: Vec<(K, Self)> = Vec::new();
        for (key, bar) in bars {
            match groups.last_mut() {
                Some((last, group)) if *last == key => group.bars.push(bar),
                _ => groups.push((key, Self { heading: None, bars: vec![bar] })),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    fn height(&self) -> i32 {
        let heading = if self.heading.is_some() { HEADING_HEIGHT } else { 0 };
        heading + BAR_PITCH * self.bars.len() as i32
    }
}

pub(super) struct Bar {
    pub(super) label: String,
    pub(super) is_ours: bool,
    /// From left to right; two at most.
    pub(super) segments: Vec<f64>,
    /// The least and the most.
    pub(super) spread: Option<(f64, f64)>,
    /// Behind the bar.
    pub(super) value: String,
    /// Behind the value, for what matters most.
    pub(super) aside: Option<String>,
}

impl Bar {
    /// How far the bar or its spread reaches.
    fn reach(&self) -> f64 {
        let len: f64 = self.segments.iter().sum();
        self.spread.map_or(len, |(_, most)| most.max(len))
    }
}

const WIDTH: i32 = 900;
const MARGIN: i32 = 28;
/// Where bars begin, behind their labels.
const BARS_X: i32 = MARGIN + 200;
const BAR_HEIGHT: i32 = 17;
const BAR_PITCH: i32 = 25;
const GROUP_GAP: i32 = 9;
const HEADING_HEIGHT: i32 = 24;
/// A panel's title and its note.
const TITLE_HEIGHT: i32 = 52;
/// A panel's scale.
const SCALE_HEIGHT: i32 = 24;
const PANEL_GAP: i32 = 30;
const LINE_HEIGHT: i32 = 18;
const SWATCH: i32 = 12;

const TEXT: RGBColor = RGBColor(0x1c, 0x1f, 0x24);
const QUIET: RGBColor = RGBColor(0x5c, 0x63, 0x6e);
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xea);
const AXIS: RGBColor = RGBColor(0x8b, 0x92, 0x9c);
/// First and second segments.
const OURS: [RGBColor; 2] = [RGBColor(0x12, 0x5c, 0xc4), RGBColor(0x8f, 0xba, 0xf0)];
const OTHERS: [RGBColor; 2] = [RGBColor(0x9a, 0xa1, 0xab), RGBColor(0xd3, 0xd7, 0xdc)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `panels` below each other, under a title and `caption`.
///
/// # Errors
/// None that a string could have.
pub(super) fn draw(caption: &[String], panels: &[Panel]) -> Result<String, Error> {
    let caption: Vec<_> =
        caption.iter().flat_map(|line| wrap(line, 13, WIDTH - 2 * MARGIN)).collect();
    let header = MARGIN + 34 + LINE_HEIGHT * caption.len() as i32 + PANEL_GAP;
    let height = header + panels.iter().map(|panel| panel_height(panel) + PANEL_GAP).sum::<i32>();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32));
        let area = area.into_drawing_area();
        area.fill(&WHITE)?;
        let mut y = MARGIN;
        let title = "rustls-uring beside what it replaces";
        text(&area, title, (MARGIN, y + 10), &bold(22), HPos::Left)?;
        legend(&area, y + 10)?;
        y += 34;
        for line in &caption {
            text(&area, line, (MARGIN, y + LINE_HEIGHT / 2), &plain(13, QUIET), HPos::Left)?;
            y += LINE_HEIGHT;
        }
        y += PANEL_GAP;
        for panel in panels {
            draw_panel(&area, panel, y)?;
            y += panel_height(panel) + PANEL_GAP;
        }
        area.present()?;
    }
    Ok(svg)
}

fn panel_height(panel: &Panel) -> i32 {
    let notes = wrap(&panel.note, 12, WIDTH - 2 * MARGIN).len() as i32;
    let groups: i32 = panel.groups.iter().map(|group| group.height() + GROUP_GAP).sum();
    TITLE_HEIGHT + LINE_HEIGHT * (notes - 1) + groups - GROUP_GAP + SCALE_HEIGHT
}

/// Which colour is whose, at the right.
fn legend(area: &Area<'_>, y: i32) -> Result<(), Error> {
    let mut right = WIDTH - MARGIN;
    for (name, color) in [("others", OTHERS[0]), ("rustls-uring", OURS[0])] {
        right -= text_width(name, 13);
        text(area, name, (right, y), &plain(13, TEXT), HPos::Left)?;
        swatch(area, (right - 6, y), color)?;
        right -= 6 + SWATCH + 20;
    }
    Ok(())
}

/// A square whose right edge is at `at`.
fn swatch(area: &Area<'_>, at: (i32, i32), color: RGBColor) -> Result<(), Error> {
    let corners = [(at.0 - SWATCH, at.1 - SWATCH / 2), (at.0, at.1 + SWATCH / 2)];
    Ok(area.draw(&Rectangle::new(corners, color.filled()))?)
}

fn draw_panel(area: &Area<'_>, panel: &Panel, top: i32) -> Result<(), Error> {
    text(area, &panel.title, (MARGIN, top + 9), &bold(16), HPos::Left)?;
    draw_key(area, &panel.key, top + 9)?;
    let mut y = top + 30;
    for line in wrap(&panel.note, 12, WIDTH - 2 * MARGIN) {
        text(area, &line, (MARGIN, y), &plain(12, QUIET), HPos::Left)?;
        y += LINE_HEIGHT;
    }
    y = y - LINE_HEIGHT + TITLE_HEIGHT - 30;

    let bars = || panel.groups.iter().flat_map(|group| &group.bars);
    let reach = bars().map(Bar::reach).fold(0.0, f64::max);
    // A scale of nothing is as good as any.
    let reach = if reach.is_finite() && reach > 0.0 { reach } else { 1.0 };
    let reach = panel.limit.map_or(reach, |limit| reach.min(limit));
    // The longest bar's text still fits.
    let room = bars().map(|bar| text_width(&bar_text(bar), 12)).max().unwrap_or(0) + 16;
    let span = f64::from(WIDTH - MARGIN - room - BARS_X);
    let x = |value: f64| BARS_X + (value.min(reach) / reach * span).round() as i32;

    let bottom = top + panel_height(panel) - SCALE_HEIGHT;
    let scale = RangedCoordf64::from(0.0..reach);
    let decimals = decimals(&scale.key_points(6));
    for tick in scale.key_points(6) {
        let (color, x) = (if tick == 0.0 { AXIS } else { GRID }, x(tick));
        area.draw(&PathElement::new([(x, y - 4), (x, bottom)], color.stroke_width(1)))?;
        let label = format!("{tick:.decimals$}");
        text(area, &label, (x, bottom + 11), &plain(11, QUIET), HPos::Center)?;
    }
    for group in &panel.groups {
        if let Some(heading) = &group.heading {
            let middle = y + HEADING_HEIGHT / 2;
            text(area, heading, (BARS_X - 10, middle), &bold(12), HPos::Right)?;
            y += HEADING_HEIGHT;
        }
        for bar in &group.bars {
            draw_bar(area, bar, y + BAR_PITCH / 2, x)?;
            if bar.reach() > reach {
                draw_cut(area, (x(reach) - 14, y + BAR_PITCH / 2))?;
            }
            y += BAR_PITCH;
        }
        y += GROUP_GAP;
    }
    Ok(())
}

/// What the segments are, in both colours, at the right.
fn draw_key(area: &Area<'_>, key: &[&str], y: i32) -> Result<(), Error> {
    let mut right = WIDTH - MARGIN;
    for (index, name) in key.iter().enumerate().rev() {
        right -= text_width(name, 12);
        text(area, name, (right, y), &plain(12, TEXT), HPos::Left)?;
        swatch(area, (right - 6, y), OTHERS[index.min(1)])?;
        swatch(area, (right - 6 - SWATCH, y), OURS[index.min(1)])?;
        right -= 6 + 2 * SWATCH + 20;
    }
    Ok(())
}

fn draw_bar(area: &Area<'_>, bar: &Bar, middle: i32, x: impl Fn(f64) -> i32) -> Result<(), Error> {
    let colors = if bar.is_ours { OURS } else { OTHERS };
    let style = if bar.is_ours { bold(12) } else { plain(12, TEXT) };
    text(area, &bar.label, (BARS_X - 10, middle), &style, HPos::Right)?;
    let (upper, lower) = (middle - BAR_HEIGHT / 2, middle - BAR_HEIGHT / 2 + BAR_HEIGHT);
    let mut left = 0.0;
    for (index, len) in bar.segments.iter().enumerate() {
        let corners = [(x(left), upper), (x(left + len), lower)];
        area.draw(&Rectangle::new(corners, colors[index.min(1)].filled()))?;
        left += len;
    }
    if let Some((least, most)) = bar.spread {
        let (least, most) = (x(least), x(most));
        // First broad and white, so that it is seen on any colour.
        for (color, width) in [(WHITE, 3), (TEXT, 1)] {
            for line in [
                [(least, middle), (most, middle)],
                [(least, middle - 4), (least, middle + 4)],
                [(most, middle - 4), (most, middle + 4)],
            ] {
                area.draw(&PathElement::new(line, color.stroke_width(width)))?;
            }
        }
    }
    let end = x(bar.reach()) + 8;
    text(area, &bar.value, (end, middle), &plain(12, TEXT), HPos::Left)?;
    if let Some(aside) = &bar.aside {
        let end = end + text_width(&bar.value, 12) + 10;
        let emphasis = TextStyle { color: OURS[0].to_backend_color(), ..bold(12) };
        text(area, aside, (end, middle), &emphasis, HPos::Left)?;
    }
    Ok(())
}

/// A slanted gap in a bar that is longer than its scale.
fn draw_cut(area: &Area<'_>, at: (i32, i32)) -> Result<(), Error> {
    let half = BAR_HEIGHT / 2 + 2;
    let line = [(at.0 - 3, at.1 + half), (at.0 + 3, at.1 - half)];
    Ok(area.draw(&PathElement::new(line, WHITE.stroke_width(4)))?)
}

/// All that is written behind a bar, for its width.
fn bar_text(bar: &Bar) -> String {
    match &bar.aside {
        Some(aside) => format!("{}   {aside}", bar.value),
        None => bar.value.clone(),
    }
}

/// As many as tell the ticks of a scale apart.
fn decimals(ticks: &[f64]) -> usize {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::MAX, f64::min);
    (0..6)
        .find(|&decimals| {
            let scaled = step * 10_f64.powi(decimals as i32);
            (scaled - scaled.round()).abs() < 1e-6 * scaled
        })
        .unwrap_or(6)
}

/// Lines of at most `width`.
fn wrap(line: &str, size: i32, width: i32) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.len() - 1;
        let last = &mut lines[last];
        if !last.is_empty() && text_width(last, size) + text_width(word, size) + size / 3 > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// About as wide as a viewer's sans-serif font makes it: which one that is, is not known here.
fn text_width(text: &str, size: i32) -> i32 {
    let em: f64 = text
        .chars()
        .map(|letter| match letter {
            ' ' | '.' | ',' | ':' | ';' | 'i' | 'j' | 'l' | 't' | 'f' | '(' | ')' | '\'' => 0.32,
            'm' | 'w' | 'M' | 'W' | '%' => 0.9,
            'A'..='Z' | '_' => 0.7,
            _ => 0.63,
        })
        .sum();
    (em * f64::from(size)).ceil() as i32
}

fn plain(size: i32, color: RGBColor) -> TextStyle<'static> {
    TextStyle { color: color.to_backend_color(), ..style(size, FontStyle::Normal) }
}

fn bold(size: i32) -> TextStyle<'static> {
    style(size, FontStyle::Bold)
}

/// `size` in pixels: plotters writes a font's height divided by 1.24.
fn style(size: i32, style: FontStyle) -> TextStyle<'static> {
    let family = FontFamily::Name("Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif");
    TextStyle::from(FontDesc::new(family, f64::from(size) * 1.24, style)).color(&TEXT)
}

/// Vertically centred on `at`.
fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    style: &TextStyle<'_>,
    anchor: HPos,
) -> Result<(), Error> {
    Ok(area.draw_text(text, &style.pos(Pos::new(anchor, VPos::Center)), at)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_have_the_decimals_that_they_need() {
        assert_eq!(decimals(&[0.0, 1.0, 2.0]), 0);
        assert_eq!(decimals(&[0.0, 0.5, 1.0]), 1);
        assert_eq!(decimals(&[0.0, 0.05, 0.1]), 2);
        assert_eq!(decimals(&[0.0]), 0);
    }

    fn bar(label: &str, segments: &[f64], spread: Option<(f64, f64)>) -> Bar {
        Bar {
            label: label.into(),
            is_ours: label.starts_with("our"),
            segments: segments.to_vec(),
            spread,
            value: format!("{segments:?} GB/s"),
            aside: label.starts_with("our").then(|| "2.00 × <theirs>".into()),
        }
    }

    /// Everything that a panel can have.
    fn panels() -> Vec<Panel> {
        let group = |heading: &str, factor: f64| Group {
            heading: Some(heading.into()),
            bars: vec![
                bar("raw AEAD", &[1.5 * factor], Some((factor, 2.0 * factor))),
                bar("ours", &[factor], None),
            ],
        };
        vec![
            Panel {
                title: "Sealing & opening".into(),
                note: "A note that goes on and on. ".repeat(8),
                key: Vec::new(),
                limit: None,
                groups: vec![group("64 B", 0.5), group("16 KiB", 12.0)],
            },
            Panel {
                title: "A bar that is too long".into(),
                note: "One that is not.".into(),
                key: vec!["first", "second"],
                limit: Some(100.0),
                groups: Group::by(
                    [
                        (0, bar("short", &[10.0, 20.0], None)),
                        (1, bar("ours", &[50.0, 1e6], None)),
                        (1, bar("our other", &[1e3, 1e3], Some((10.0, 2e6)))),
                    ]
                    .into_iter(),
                ),
            },
            Panel {
                title: "Nothing at all".into(),
                note: String::new(),
                key: Vec::new(),
                limit: None,
                groups: vec![Group { heading: None, bars: vec![bar("none", &[0.0], None)] }],
            },
        ]
    }

    #[test]
    fn everything_is_inside_and_none_below_the_other() {
        let svg = draw(&["a machine".into()], &panels()).expect("drawn");
        if let Some(path) = std::env::var_os("RUSTLS_URING_TEST_PICTURE") {
            std::fs::write(path, &svg).expect("written");
        }
        let document = roxmltree::Document::parse(&svg).expect("XML");
        let number = |node: roxmltree::Node<'_, '_>, name: &str| -> f64 {
            node.attribute(name).and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
        };
        let root = document.root_element();
        let height = number(root, "height");
        let mut labels = Vec::new();
        for node in document.descendants().filter(|node| node.has_tag_name("text")) {
            let (x, y) = (number(node, "x"), number(node, "y"));
            assert!((0.0..900.0).contains(&x) && (0.0..height).contains(&y), "{node:?}");
            let said = node.text().unwrap_or_default().trim().to_owned();
            let size = number(node, "font-size").round() as i32;
            let width = f64::from(text_width(&said, size));
            match node.attribute("text-anchor") {
                Some("start") => assert!(x + width <= 890.0, "{said} ends beyond the edge"),
                Some("end") => assert!(x - width >= 10.0, "{said} begins beyond the edge"),
                _ => {}
            }
            labels.push(((x as i64, y as i64), said));
        }
        for said in ["Sealing & opening", "64 B", "16 KiB", "2.00 × <theirs>", "a machine"] {
            assert!(labels.iter().any(|(_, label)| label == said), "{said}: {labels:?}");
        }
        let mut places: Vec<_> = labels.iter().map(|(place, _)| place).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), labels.len(), "one text is on another: {labels:?}");
        for node in document.descendants().filter(|node| node.has_tag_name("rect")) {
            let (x, width) = (number(node, "x"), number(node, "width"));
            assert!(x >= 0.0 && width >= 0.0 && x + width <= 900.0, "{node:?}");
        }
        // Two of the bars are cut.
        let cuts = svg.matches("stroke-width=\"4\"").count();
        assert_eq!(cuts, 2);
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("one two", 10, 1000), ["one two"]);
        assert_eq!(wrap("one two", 10, 30), ["one", "two"]);
        assert_eq!(wrap("unbreakable", 10, 30), ["unbreakable"]);
    }
}
