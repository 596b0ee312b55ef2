//! Metrics of topics.

use calimero_network_primitives::Topic;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    hash: String,
}

/// Metrics in a registry, with one set of labels for each topic of this node.
#[derive(Debug)]
pub(crate) struct Metrics {
    subscriptions: Family<Labels, Gauge>,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let subscriptions = Family::default();
        registry.register(
            "topic_subscription_status",
            "Whether this node subscribes to the topic",
            subscriptions.clone(),
        );
        Self { subscriptions }
    }

    pub(crate) fn subscribed(&self, topic: &Topic, subscribed: bool) {
        let labels = Labels {
            hash: topic.to_string(),
        };
        if subscribed {
            self.subscriptions.get_or_create(&labels).set(1);
        } else {
            self.subscriptions.remove(&labels);
        }
    }
}
