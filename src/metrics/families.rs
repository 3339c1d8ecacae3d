//! Metrics whose values lie elsewhere and are read when somebody asks.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One value and what it is of.
pub(super) struct Sample {
    value: f64,
    labels: Vec<LabelPair>,
}

impl Sample {
    pub(super) fn of(value: f64) -> Self {
        Self {
            value,
            labels: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        self.labels.push(label);
        self
    }
}

#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample>,
    ) {
        self.add(MetricType::GAUGE, name, help, samples, |metric, value| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        });
    }

    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample>,
    ) {
        self.add(MetricType::COUNTER, name, help, samples, |metric, value| {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        });
    }

    /// A family without samples is left out: nothing is known.
    fn add(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample>,
        put: impl Fn(&mut Metric, f64),
    ) {
        let metrics: Vec<_> = samples
            .into_iter()
            .map(|sample| {
                let mut metric = Metric::default();
                metric.set_label(sample.labels);
                put(&mut metric, sample.value);
                metric
            })
            .collect();
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    pub(super) fn into_inner(self) -> Vec<MetricFamily> {
        self.0
    }
}
