//! A simulated bottleneck: one queue, its rate, delay and random loss, and the senders that share
//! it. Time is virtual.

use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{receiver::Stream, sender::Sender};

/// UDP payload of every simulated packet, in bytes.
pub(super) const PACKET_BYTES: u64 = 1_452;

/// What a link does to packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Rate of the link in bytes per second.
    pub(super) rate: f64,
    /// Time there and back without a queue.
    pub(super) rtt: Duration,
    /// Bytes that may wait.
    pub(super) queue_bytes: u64,
    /// Bytes in the queue above which it marks the packets that enter it.
    pub(super) marks_above: u64,
    /// Share of the packets that is lost behind the queue.
    pub(super) loss: f64,
    /// Longest time for which a sender is not scheduled, about every tenth of a second: it then
    /// handles all packets that arrived in that time at one moment.
    pub(super) stall: Duration,
}

impl Link {
    /// A link of `mbit` Mbit/s whose queue holds `queue` bandwidth-delay products.
    pub(super) fn new(mbit: f64, rtt_ms: u64, queue: f64, loss: f64) -> Self {
        let rate = mbit * 1e6 / 8.0;
        let rtt = Duration::from_millis(rtt_ms);
        let queue_bytes = (rate * rtt.as_secs_f64() * queue) as u64;
        Self {
            rate,
            rtt,
            queue_bytes,
            marks_above: u64::MAX,
            loss,
            stall: Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The packet at the head of the queue has been sent on.
    Forwarded,
    Arrives {
        flow: usize,
        packet: u64,
    },
    /// The receiver acknowledges what it holds back, if it still does.
    AckDelay {
        flow: usize,
        packet: u64,
    },
    Acked {
        flow: usize,
        up_to: u64,
    },
    Wake {
        flow: usize,
    },
}

/// Bytes that one sender has sent, delivered and lost to the full queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) delivered: u64,
    pub(super) sent: u64,
    pub(super) dropped_by_queue: u64,
}

struct Flow {
    sender: Box<dyn Sender>,
    starts: Instant,
    /// Packets that wait to be sent; `None` if there are more at all times.
    backlog: Option<u64>,
    /// Whether the last packet that waited was sent, and neither window nor pacer kept others back.
    app_limited: bool,
    next_packet: u64,
    /// Packets in flight with their sending times.
    in_flight: BTreeMap<u64, Instant>,
    largest_acked: Option<u64>,
    /// Packets that the queue marked and that are not acknowledged yet.
    marked: BTreeSet<u64>,
    /// Packets that arrived and are not acknowledged yet.
    arrived: Vec<u64>,
    /// What acknowledgements on their way back say.
    acks: VecDeque<Vec<u64>>,
    srtt: Option<Duration>,
    tokens: f64,
    paced_at: Instant,
    last_ack: Instant,
    /// When the flow is woken next.
    wakes: Option<Instant>,
    /// The sender is not scheduled until then.
    stalled_until: Instant,
    /// When the next stall begins.
    stalls: Instant,
    stream: Stream,
    outcome: Outcome,
}

/// A run of senders over a link.
pub(super) struct Run {
    link: Link,
    now: Instant,
    events: BinaryHeap<std::cmp::Reverse<(Instant, u64, Event)>>,
    serial: u64,
    queue: VecDeque<(usize, u64)>,
    flows: Vec<Flow>,
    rng: SmallRng,
    /// Waiting time in the queue of each packet that got through it.
    waits: Vec<Duration>,
    entered: VecDeque<Instant>,
}

impl Run {
    pub(super) fn new(link: Link, seed: u64, start: Instant) -> Self {
        Self {
            link,
            now: start,
            events: BinaryHeap::new(),
            serial: 0,
            queue: VecDeque::new(),
            flows: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
            waits: Vec::new(),
            entered: VecDeque::new(),
        }
    }

    /// Adds a sender that begins after `wait` and has more to send at all times.
    pub(super) fn add(&mut self, sender: Box<dyn Sender>, wait: Duration) {
        self.add_flow(sender, wait, None);
    }

    /// Adds a sender with nothing to send until [`Run::offer`].
    pub(super) fn add_idle(&mut self, sender: Box<dyn Sender>) {
        self.add_flow(sender, Duration::ZERO, Some(0));
    }

    /// Gives a sender `bytes` more to send, in full packets; `None` for more at all times.
    pub(super) fn offer(&mut self, flow: usize, bytes: Option<u64>) {
        let backlog = &mut self.flows[flow].backlog;
        *backlog = match (*backlog, bytes) {
            (Some(packets), Some(bytes)) => Some(packets + bytes.div_ceil(PACKET_BYTES)),
            _ => None,
        };
        self.wake(flow, self.now);
    }

    pub(super) fn sender(&self, flow: usize) -> &dyn Sender {
        &*self.flows[flow].sender
    }

    /// The stream of a flow.
    pub(super) fn stream(&self, flow: usize) -> &Stream {
        &self.flows[flow].stream
    }

    /// Bytes that a sender has not had acknowledged yet, or `None` if they never end.
    pub(super) fn unfinished(&self, flow: usize) -> Option<u64> {
        let flow = &self.flows[flow];
        let packets = flow.backlog? + flow.in_flight.len() as u64;
        Some(packets * PACKET_BYTES)
    }

    fn add_flow(&mut self, sender: Box<dyn Sender>, wait: Duration, backlog: Option<u64>) {
        let starts = self.now + wait;
        let flow = self.flows.len();
        self.flows.push(Flow {
            sender,
            starts,
            backlog,
            app_limited: false,
            next_packet: 0,
            in_flight: BTreeMap::new(),
            largest_acked: None,
            marked: BTreeSet::new(),
            arrived: Vec::new(),
            acks: VecDeque::new(),
            srtt: None,
            tokens: 10.0 * PACKET_BYTES as f64,
            paced_at: starts,
            last_ack: starts,
            wakes: None,
            stalled_until: starts,
            stalls: starts,
            stream: Stream::default(),
            outcome: Outcome::default(),
        });
        self.wake(flow, starts);
    }

    /// Changes the link from now on.
    pub(super) fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Lets `time` pass and returns what each sender did in it.
    pub(super) fn run(&mut self, time: Duration) -> Vec<Outcome> {
        let end = self.now + time;
        let before: Vec<_> = self.flows.iter().map(|flow| flow.outcome).collect();
        self.waits.clear();
        while let Some(std::cmp::Reverse((at, _, _))) = self.events.peek()
            && *at <= end
        {
            let Some(std::cmp::Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.on_event(event);
        }
        self.now = end;
        let since = |(flow, before): (&Flow, Outcome)| Outcome {
            delivered: flow.outcome.delivered - before.delivered,
            sent: flow.outcome.sent - before.sent,
            dropped_by_queue: flow.outcome.dropped_by_queue - before.dropped_by_queue,
        };
        self.flows.iter().zip(before).map(since).collect()
    }

    /// Median time that packets waited in the queue during the last [`Run::run`].
    pub(super) fn median_wait(&mut self) -> Duration {
        self.waits.sort_unstable();
        self.waits
            .get(self.waits.len() / 2)
            .copied()
            .unwrap_or_default()
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events
            .push(std::cmp::Reverse((at, self.serial, event)));
    }

    /// Wakes the flow at `at`, and at no other time.
    fn wake(&mut self, flow: usize, at: Instant) {
        if self.flows[flow].wakes != Some(at) {
            self.flows[flow].wakes = Some(at);
            self.at(at, Event::Wake { flow });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Forwarded => self.on_forwarded(),
            Event::Arrives { flow, packet } => {
                self.flows[flow].stream.on_arrived(packet);
                let held = &mut self.flows[flow].arrived;
                held.push(packet);
                if held.len() >= 2 {
                    self.acknowledge(flow);
                } else {
                    let late = self.now + Duration::from_millis(25);
                    self.at(late, Event::AckDelay { flow, packet });
                }
            }
            Event::AckDelay { flow, packet } => {
                if self.flows[flow].arrived.first() == Some(&packet) {
                    self.acknowledge(flow);
                }
            }
            Event::Acked { flow, up_to } => {
                if let Some(until) = self.stalled(flow) {
                    self.at(until, event);
                    return;
                }
                self.on_acked(flow, up_to);
                self.send(flow);
            }
            Event::Wake { flow } => {
                if self.flows[flow].wakes != Some(self.now) {
                    return;
                }
                self.flows[flow].wakes = None;
                if let Some(until) = self.stalled(flow) {
                    self.wake(flow, until);
                    return;
                }
                self.send(flow);
            }
        }
    }

    /// When the sender is scheduled again; `None` while it is.
    fn stalled(&mut self, flow: usize) -> Option<Instant> {
        if self.link.stall.is_zero() {
            return None;
        }
        let length = self.link.stall.mul_f64(self.rng.random());
        let pause = Duration::from_millis(200).mul_f64(self.rng.random());
        let now = self.now;
        let flow = &mut self.flows[flow];
        if now >= flow.stalls {
            flow.stalled_until = now + length;
            flow.stalls = flow.stalled_until + pause;
        }
        (now < flow.stalled_until).then_some(flow.stalled_until)
    }

    fn on_forwarded(&mut self) {
        let Some((flow, packet)) = self.queue.pop_front() else {
            return;
        };
        if let Some(entered) = self.entered.pop_front() {
            self.waits.push(self.now - entered);
        }
        if !self.rng.random_bool(self.link.loss) {
            let there = self.now + self.link.rtt / 2;
            self.at(there, Event::Arrives { flow, packet });
        }
        if !self.queue.is_empty() {
            let next = self.now + self.serialization();
            self.at(next, Event::Forwarded);
        }
    }

    fn serialization(&self) -> Duration {
        Duration::from_secs_f64(PACKET_BYTES as f64 / self.link.rate)
    }

    fn acknowledge(&mut self, flow: usize) {
        let packets = std::mem::take(&mut self.flows[flow].arrived);
        let up_to = packets.last().copied().unwrap_or_default();
        self.flows[flow].acks.push_back(packets);
        let back = self.now + self.link.rtt / 2;
        self.at(back, Event::Acked { flow, up_to });
    }

    fn on_acked(&mut self, flow: usize, up_to: u64) {
        let now = self.now;
        let flow = &mut self.flows[flow];
        let packets = flow.acks.pop_front().unwrap_or_default();
        flow.last_ack = now;
        flow.largest_acked = flow.largest_acked.max(Some(up_to));
        let mut newest = None;
        let mut marked = false;
        for packet in packets {
            marked |= flow.marked.remove(&packet);
            if let Some(sent) = flow.in_flight.remove(&packet) {
                newest = newest.max(Some(sent));
                flow.outcome.delivered += PACKET_BYTES;
                flow.sender.on_ack(now, sent, PACKET_BYTES);
            }
        }
        if let Some(newest) = newest {
            let rtt = now - newest;
            flow.srtt = Some(flow.srtt.map_or(rtt, |srtt| (srtt * 7 + rtt) / 8));
        }
        let in_flight = flow.in_flight.len() as u64 * PACKET_BYTES;
        flow.sender.on_end_acks(now, in_flight, flow.app_limited);
        // Three later packets arrived (RFC 9002, section 6.1.1): the link keeps their order.
        let lost: Vec<_> = flow
            .in_flight
            .range(..up_to.saturating_sub(2))
            .map(|(&packet, &sent)| (packet, sent))
            .collect();
        if let Some((_, sent)) = lost.last() {
            let sent = *sent;
            for (packet, _) in &lost {
                flow.in_flight.remove(packet);
                flow.stream.on_lost(*packet);
            }
            let packets = lost.len() as u64;
            flow.backlog = flow.backlog.map(|waiting| waiting + packets);
            flow.sender.on_loss(now, sent, packets * PACKET_BYTES);
        }
        if let Some(newest) = newest.filter(|_| marked) {
            flow.sender.on_marks(now, newest);
        }
    }

    fn send(&mut self, flow: usize) {
        let now = self.now;
        if now < self.flows[flow].starts {
            return;
        }
        // A probe after silence (RFC 9002, section 6.2), with all that was in flight taken as lost.
        let quiet = self.flows[flow].srtt.unwrap_or(Duration::from_millis(333)) * 3;
        if now >= self.flows[flow].last_ack + quiet && !self.flows[flow].in_flight.is_empty() {
            let flow = &mut self.flows[flow];
            let packets = flow.in_flight.len() as u64;
            flow.backlog = flow.backlog.map(|waiting| waiting + packets);
            for packet in std::mem::take(&mut flow.in_flight).into_keys() {
                flow.stream.on_lost(packet);
            }
            flow.last_ack = now;
            flow.sender.on_loss(now, now, packets * PACKET_BYTES);
        }
        loop {
            let sending = &mut self.flows[flow];
            sending.app_limited = sending.backlog == Some(0);
            if sending.app_limited {
                if !sending.in_flight.is_empty() {
                    self.wake(flow, now + quiet);
                }
                return;
            }
            let in_flight = sending.in_flight.len() as u64 * PACKET_BYTES;
            let window = sending.sender.window();
            if in_flight + PACKET_BYTES >= window {
                self.wake(flow, now + quiet);
                return;
            }
            if let Some(wait) = self.pace(flow, window) {
                self.wake(flow, now + wait);
                return;
            }
            self.transmit(flow);
        }
    }

    /// The pacer of `quinn`: bursts of 2 ms, 10 to 256 packets, at 1.25 windows a round trip.
    fn pace(&mut self, flow: usize, window: u64) -> Option<Duration> {
        let now = self.now;
        let flow = &mut self.flows[flow];
        let srtt = flow.srtt?.as_secs_f64();
        let rate = 1.25 * window as f64 / srtt;
        let packet = PACKET_BYTES as f64;
        let capacity = (window as f64 * 0.002 / srtt).clamp(10.0 * packet, 256.0 * packet);
        let elapsed = (now - flow.paced_at).as_secs_f64();
        flow.tokens = (flow.tokens + rate * elapsed).min(capacity);
        flow.paced_at = now;
        if flow.tokens >= packet {
            flow.tokens -= packet;
            return None;
        }
        let lacking = (capacity - flow.tokens).max(packet) / rate * 0.8;
        Some(Duration::from_secs_f64(lacking.max(1e-6)))
    }

    fn transmit(&mut self, flow: usize) {
        let now = self.now;
        let sending = &mut self.flows[flow];
        let packet = sending.next_packet;
        sending.next_packet += 1;
        sending.backlog = sending.backlog.map(|packets| packets - 1);
        sending.in_flight.insert(packet, now);
        sending.stream.on_sent(packet);
        sending.outcome.sent += PACKET_BYTES;
        sending.sender.on_sent(now, PACKET_BYTES);
        if sending.in_flight.len() == 1 {
            sending.last_ack = now;
        }
        let waiting = self.queue.len() as u64 * PACKET_BYTES;
        if waiting + PACKET_BYTES > self.link.queue_bytes.max(2 * PACKET_BYTES) {
            sending.outcome.dropped_by_queue += PACKET_BYTES;
            return;
        }
        if waiting >= self.link.marks_above {
            sending.marked.insert(packet);
        }
        if self.queue.is_empty() {
            let next = now + self.serialization();
            self.at(next, Event::Forwarded);
        }
        self.queue.push_back((flow, packet));
        self.entered.push_back(now);
    }
}
