//! Metrics as an instance uses them, and as they are read.

use super::*;

fn definition(kind: MetricKind, name: &str, labels: &[&str]) -> Definition {
    Definition {
        kind,
        name: name.to_owned(),
        help: "Help".to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        buckets: vec![1.0, 5.0],
    }
}

fn read(metrics: &FilterMetrics) -> Vec<(String, Vec<String>, MetricValue)> {
    let mut all = Vec::new();
    metrics.for_each(|_, name, _, labels, value| {
        let labels = labels.iter().map(|(_, value)| value.clone()).collect();
        all.push((name.to_owned(), labels, value));
    });
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    all
}

#[test]
fn instances_count_together_and_a_same_definition_survives() {
    let old = Arc::new(FilterMetrics::default());
    let (mut a, mut b) = (Metrics::new(old.clone()), Metrics::new(old.clone()));
    let hits = definition(MetricKind::Counter, "hits_total", &["who"]);
    let number = a.define(hits.clone()).unwrap();
    assert_eq!(b.define(hits.clone()), Ok(number));
    a.add(number, &["x"], 1.0).unwrap();
    b.add(number, &["x"], 2.0).unwrap();
    b.add(number, &["x"], -5.0).unwrap();
    b.add(number, &["x"], f64::NAN).unwrap();
    let new = Arc::new(FilterMetrics::after(Some(&old)));
    let mut c = Metrics::new(new.clone());
    let level = c
        .define(definition(MetricKind::Gauge, "level", &[]))
        .unwrap();
    let number = c.define(hits).unwrap();
    c.add(number, &["x"], 4.0).unwrap();
    c.set(level, &[] as &[&str], -1.5).unwrap();
    // What still runs in an instance of the old filter counts in the same place.
    a.add(0, &["x"], 1.0).unwrap();
    let expected = [
        ("hits".into(), vec!["x".into()], MetricValue::Number(8.0)),
        ("level".into(), vec![], MetricValue::Number(-1.5)),
    ];
    assert_eq!(read(&new), expected);
    let changed = Arc::new(FilterMetrics::after(Some(&new)));
    let mut d = Metrics::new(changed.clone());
    d.define(definition(MetricKind::Gauge, "hits", &[]))
        .unwrap();
    assert_eq!(
        read(&changed),
        [("hits".into(), vec![], MetricValue::Number(0.0))]
    );
}

#[test]
fn histograms_count_by_bucket() {
    let filter = Arc::new(FilterMetrics::default());
    let mut metrics = Metrics::new(filter.clone());
    let number = metrics
        .define(definition(MetricKind::Histogram, "seconds", &[]))
        .unwrap();
    for value in [0.5, 1.0, 4.0, 9.0, f64::INFINITY] {
        metrics.observe(number, &[] as &[&str], value).unwrap();
    }
    let buckets = vec![(1.0, 2), (5.0, 1), (f64::INFINITY, 1)];
    let expected = MetricValue::Histogram(buckets, 14.5);
    assert_eq!(read(&filter), [("seconds".into(), vec![], expected)]);
}

#[test]
fn sets_of_values_are_bounded_and_long_values_cut() {
    let filter = Arc::new(FilterMetrics::default());
    let (mut a, mut b) = (Metrics::new(filter.clone()), Metrics::new(filter.clone()));
    let number = a
        .define(definition(MetricKind::Counter, "hits", &["who"]))
        .unwrap();
    for n in 0..SERIES_MAX + 50 {
        a.add(number, &[n.to_string()], 1.0).unwrap();
    }
    b.add(number, &["7"], 1.0).unwrap();
    b.add(number, &["never seen"], 1.0).unwrap();
    b.add(number, &["8"], 1.0).unwrap();
    let all = read(&filter);
    assert_eq!(all.len(), SERIES_MAX + 1);
    let of = |who: &str| {
        let mut found = all.iter().filter(|(_, labels, _)| labels[0] == who);
        found.next().map(|(_, _, value)| value.clone())
    };
    assert_eq!(of("7"), Some(MetricValue::Number(2.0)));
    assert_eq!(of("8"), Some(MetricValue::Number(2.0)));
    assert_eq!(of(OTHER), Some(MetricValue::Number(51.0)));
    let mut cut = Metrics::new(Arc::new(FilterMetrics::default()));
    let number = cut
        .define(definition(MetricKind::Counter, "hits", &["who"]))
        .unwrap();
    cut.add(number, &["é".repeat(100)], 1.0).unwrap();
    assert_eq!(read(&cut.filter)[0].1[0].len(), VALUE_BYTES_MAX);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut metrics = Metrics::new(Arc::new(FilterMetrics::default()));
    let counter = |name: &str, labels: &[&str]| definition(MetricKind::Counter, name, labels);
    for name in ["", "1a", "a-b", "a b", &"a".repeat(129)] {
        let refused = metrics.define(counter(name, &[]));
        assert!(matches!(refused, Err(BadMetric::Name(_))), "{name}");
    }
    for name in ["total", "a_bucket", "a_count", "sum", "a_info"] {
        let refused = metrics.define(counter(name, &[]));
        assert!(matches!(refused, Err(BadMetric::Ending(..))), "{name}");
    }
    for labels in [["le", "b"], ["filter", "b"], ["a", "a"], ["a", "b-c"]] {
        let refused = metrics.define(counter("x", &labels));
        assert!(matches!(refused, Err(BadMetric::Label(_))), "{labels:?}");
    }
    let many: Vec<String> = (0..9).map(|n| format!("l{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(metrics.define(counter("x", &many)).is_err());
    let mut histogram = definition(MetricKind::Histogram, "h", &[]);
    for buckets in [vec![], vec![2.0, 1.0], vec![f64::NAN], vec![0.0; 65]] {
        histogram.buckets = buckets;
        let refused = metrics.define(histogram.clone());
        assert!(matches!(refused, Err(BadMetric::Buckets(_))));
    }
    let number = metrics.define(counter("x", &["a"])).unwrap();
    let other = metrics.define(definition(MetricKind::Gauge, "x", &["a"]));
    assert_eq!(other, Err(BadMetric::Conflict("x".into())));
    assert!(metrics.add(number, &["1", "2"], 1.0).is_err());
    assert!(metrics.set(number, &["1"], 1.0).is_err());
    assert!(metrics.observe(number, &["1"], 1.0).is_err());
    assert_eq!(metrics.add(99, &["1"], 1.0), Err(BadMetric::Unknown(99)));
    for n in 1..METRICS_MAX {
        metrics.define(counter(&format!("x{n}"), &[])).unwrap();
    }
    assert_eq!(metrics.define(counter("y", &[])), Err(BadMetric::TooMany));
}

#[test]
fn threads_lose_nothing() {
    let filter = Arc::new(FilterMetrics::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut metrics = Metrics::new(filter.clone());
            scope.spawn(move || {
                let hits = definition(MetricKind::Counter, "hits", &["who"]);
                let number = metrics.define(hits).unwrap();
                (0..10_000).for_each(|_| metrics.add(number, &["x"], 1.0).unwrap());
            });
        }
    });
    assert_eq!(read(&filter)[0].2, MetricValue::Number(40_000.0));
}
