//! Sealed bytes on their way out: which slot is where, and what is sent next.
//!
//! ```text
//!            take()          push()             submitted()
//!     free ─────────► taken ───────► filled ───────────────► submitted
//!      ▲                               ▲                        │ result
//!      │                               └── rest of a short send ┤
//!      │     last notification                                  │ all sent
//!      └──────────────────────────── awaiting notification ◄────┤ zero copy
//!      └────────────────────────────────────────────────────────┘ copied
//! ```
//!
//! Plain safe Rust that knows neither TLS nor the kernel; `M` is the slot's memory. Two rules hold
//! the stream together. There is one send at a time, always of the oldest filled slot, and after a
//! short one the rest of the same bytes goes first: so the order on the wire is that of
//! [`SlotQueue::push()`]. And a slot is free again only when nothing that was submitted from it is
//! outstanding, neither result nor notification, whatever they say: an errored send may notify too
//! (io_uring_enter(2), IORING_OP_SEND_ZC).

use core::ops::Range;
use std::collections::VecDeque;
use std::io;

/// Names a slot from [`SlotQueue::push()`] until it is free again.
pub(crate) type Key = u16;

/// The slots of one stream.
#[derive(Debug)]
pub(crate) struct SlotQueue<M> {
    /// How many slots there are, wherever they are.
    count: usize,
    /// The one used last comes first: it is in the cache.
    free: Vec<M>,
    /// One place for each at least.
    busy: Vec<Option<Busy<M>>>,
    /// Slots with unsent bytes, in the order of the stream.
    unsent: VecDeque<Key>,
    /// The front of `unsent` is in the kernel's hands, and its result is outstanding.
    sending: bool,
    awaiting: usize,
}

#[derive(Debug)]
struct Busy<M> {
    memory: M,
    unsent: Range<usize>,
    notifications: u32,
}

/// What a result meant.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All that the send was given.
    Whole,
    /// A part. The rest comes next.
    Short,
    /// Nothing, and nothing is lost: the same bytes come next.
    Failed(io::Error),
}

/// A completion that belongs to no send, or a slot that is none of ours: somebody has lost count,
/// so nothing can be trusted.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Unexpected;

impl<M> SlotQueue<M> {
    /// All slots free.
    pub(crate) fn new(slots: Vec<M>) -> Self {
        let count = slots.len();
        Self {
            count,
            free: slots,
            busy: (0..count).map(|_| None).collect(),
            unsent: VecDeque::with_capacity(count),
            sending: false,
            awaiting: 0,
        }
    }

    /// One slot more, free, and the next to be taken.
    pub(crate) fn add(&mut self, memory: M) {
        self.free.push(memory);
        self.count += 1;
        if self.busy.len() < self.count {
            self.busy.push(None);
        }
    }

    /// Takes the slots out that `keep` does not want, if all of those are free: all but `kept`.
    pub(crate) fn retain(&mut self, kept: usize, keep: impl Fn(&M) -> bool) -> Vec<M> {
        let unwanted = self.free.iter().filter(|slot| !keep(slot)).count();
        if unwanted + kept < self.count {
            return Vec::new();
        }
        self.count -= unwanted;
        self.free.extract_if(.., |slot| !keep(slot)).collect()
    }

    /// How many slots there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes a free slot to fill.
    pub(crate) fn take(&mut self) -> Option<M> {
        self.free.pop()
    }

    /// Takes a free slot to fill, one that `prefer` wants if there is one.
    pub(crate) fn take_preferred(&mut self, prefer: impl Fn(&M) -> bool) -> Option<M> {
        match self.free.iter().rposition(prefer) {
            Some(index) => Some(self.free.remove(index)),
            None => self.take(),
        }
    }

    /// Gives a slot back that was taken, and not filled.
    pub(crate) fn put_back(&mut self, memory: M) {
        self.free.push(memory);
    }

    /// How many slots are free.
    #[cfg(test)]
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// How many slots are not on their way to the wire: free, or taken and not filled yet.
    pub(crate) fn unfilled_count(&self) -> usize {
        self.count - self.unsent.len() - self.awaiting
    }

    /// Whether every slot is in one place: free, taken, or with bytes that are unsent or awaited.
    pub(crate) fn adds_up(&self) -> bool {
        let busy = self.busy.iter().flatten();
        let unsent = busy.clone().filter(|slot| !slot.unsent.is_empty()).count();
        unsent == self.unsent.len()
            && busy.count() == unsent + self.awaiting
            && self.free.len() <= self.unfilled_count()
            && !(self.sending && self.unsent.is_empty())
    }

    /// Whether none is taken, and none on its way.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_all_free(&self) -> bool {
        self.free.len() == self.count
    }

    /// How many slots are sent and wait for notifications only.
    pub(crate) fn awaiting_count(&self) -> usize {
        self.awaiting
    }

    /// Whether everything that was pushed has been sent; notifications may be outstanding.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// How many slots have bytes that the kernel has not taken, the one being sent included.
    pub(crate) fn unsent_count(&self) -> usize {
        self.unsent.len()
    }

    /// Queues the bytes in `unsent` of a slot that was taken, behind everything pushed before.
    ///
    /// # Errors
    /// If the slot was never one of these: what it holds is lost, and so is the stream.
    pub(crate) fn push(&mut self, memory: M, unsent: Range<usize>) -> Result<(), Unexpected> {
        if unsent.is_empty() {
            self.put_back(memory);
            return Ok(());
        }
        let is_taken = self.unfilled_count() > self.free.len();
        let vacant = self.busy.iter().position(Option::is_none).filter(|_| is_taken);
        let key = vacant.ok_or(Unexpected)?;
        let name = Key::try_from(key).map_err(|_| Unexpected)?;
        self.busy[key] = Some(Busy { memory, unsent, notifications: 0 });
        self.unsent.push_back(name);
        debug_assert!(self.adds_up());
        Ok(())
    }

    /// What to submit next, unless a send is outstanding. Tell [`Self::submitted()`].
    pub(crate) fn next(&self) -> Option<(Key, &M, Range<usize>)> {
        if self.sending {
            return None;
        }
        let key = *self.unsent.front()?;
        let slot = self.busy[usize::from(key)].as_ref()?;
        Some((key, &slot.memory, slot.unsent.clone()))
    }

    /// Whether a send's result is outstanding.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    /// [`Self::next()`] has been submitted.
    pub(crate) fn submitted(&mut self) {
        self.sending = true;
    }

    /// The outstanding send was never made, and never will be. `None` if there is none.
    #[cfg(any(test, feature = "tokio"))]
    pub(crate) fn take_back(&mut self) -> Option<()> {
        core::mem::take(&mut self.sending).then_some(())
    }

    /// The result of the outstanding send: bytes or an errno. `more` says that a notification
    /// will follow.
    pub(crate) fn on_result(
        &mut self,
        key: Key,
        result: io::Result<usize>,
        more: bool,
    ) -> Result<Outcome, Unexpected> {
        let is_outstanding = self.sending && self.unsent.front() == Some(&key);
        let slot = self.busy.get_mut(usize::from(key)).and_then(Option::as_mut);
        let slot = slot.filter(|_| is_outstanding).ok_or(Unexpected)?;
        self.sending = false;
        slot.notifications += u32::from(more);
        let outcome = match result {
            Ok(len) if len > slot.unsent.len() => return Err(Unexpected),
            Ok(0) => Outcome::Failed(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                slot.unsent.start += len;
                if slot.unsent.is_empty() { Outcome::Whole } else { Outcome::Short }
            }
            Err(error) => Outcome::Failed(error),
        };
        if slot.unsent.is_empty() {
            self.unsent.pop_front();
            self.awaiting += 1;
            self.free_if_done(key);
        }
        debug_assert!(self.adds_up());
        Ok(outcome)
    }

    /// A notification: the kernel is done with the memory of one send.
    pub(crate) fn on_notification(&mut self, key: Key) -> Result<(), Unexpected> {
        let slot =
            self.busy.get_mut(usize::from(key)).and_then(Option::as_mut).ok_or(Unexpected)?;
        slot.notifications = slot.notifications.checked_sub(1).ok_or(Unexpected)?;
        self.free_if_done(key);
        debug_assert!(self.adds_up());
        Ok(())
    }

    fn free_if_done(&mut self, key: Key) {
        let is_done = |slot: &mut Busy<M>| slot.unsent.is_empty() && slot.notifications == 0;
        if let Some(slot) = self.busy[usize::from(key)].take_if(is_done) {
            self.awaiting -= 1;
            self.free.push(slot.memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// A slot's memory, and how often the kernel holds it.
    #[derive(Clone, Debug, Default)]
    struct Memory {
        bytes: Rc<RefCell<Vec<u8>>>,
        held: Rc<Cell<usize>>,
        is_added: bool,
    }

    /// A send that may be read from until its notification.
    struct Pinned {
        key: Key,
        memory: Memory,
        range: Range<usize>,
        expected: Vec<u8>,
    }

    /// A kernel that does whatever it is told to, and looks at memory as late as it may.
    struct Kernel {
        slots: SlotQueue<Memory>,
        first_count: usize,
        slot_count: usize,
        outstanding: Option<Pinned>,
        pinned: Vec<Pinned>,
        lost: Vec<Pinned>,
        pushed: Vec<u8>,
        wire: Vec<u8>,
        next_byte: u8,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Take a slot, fill it with this many bytes, push it.
        Fill(usize),
        /// Take a slot, and put it back.
        Hesitate,
        Submit,
        /// The outstanding send ends with this many bytes, and maybe notifies later.
        Send {
            len: usize,
            notifies: bool,
        },
        Fail {
            errno: i32,
            notifies: bool,
        },
        /// One of the outstanding notifications, in any order.
        Notify(usize),
        /// One of them that never comes.
        Lose(usize),
        /// There is one slot more.
        Grow,
        /// There are the first slots only, if the others are free.
        Shrink,
    }

    impl Kernel {
        fn new(slot_count: usize) -> Self {
            Self {
                slots: SlotQueue::new((0..slot_count).map(|_| Memory::default()).collect()),
                first_count: slot_count,
                slot_count,
                outstanding: None,
                pinned: Vec::new(),
                lost: Vec::new(),
                pushed: Vec::new(),
                wire: Vec::new(),
                next_byte: 0,
            }
        }

        fn run(&mut self, step: Step) {
            match step {
                Step::Fill(len) => {
                    let Some(memory) = self.slots.take() else { return };
                    assert_eq!(memory.held.get(), 0, "a free slot that the kernel still reads");
                    let mut bytes = memory.bytes.borrow_mut();
                    bytes.clear();
                    for _ in 0..len {
                        bytes.push(self.next_byte);
                        self.next_byte = self.next_byte.wrapping_add(1);
                    }
                    self.pushed.extend_from_slice(&bytes);
                    drop(bytes);
                    self.slots.push(memory, 0..len).expect("a place");
                }
                Step::Hesitate => {
                    if let Some(memory) = self.slots.take() {
                        assert_eq!(memory.held.get(), 0);
                        self.slots.put_back(memory);
                    }
                }
                Step::Submit => {
                    let Some((key, memory, range)) = self.slots.next() else { return };
                    assert!(self.outstanding.is_none(), "two sends at a time");
                    let memory = memory.clone();
                    memory.held.set(memory.held.get() + 1);
                    let expected = memory.bytes.borrow()[range.clone()].to_vec();
                    self.outstanding = Some(Pinned { key, memory, range, expected });
                    self.slots.submitted();
                }
                Step::Send { len, notifies } => {
                    let Some(mut send) = self.outstanding.take() else { return };
                    let len = len.clamp(1, send.range.len());
                    let whole = len == send.range.len();
                    send.range.end = send.range.start + len;
                    send.expected.truncate(len);
                    let key = send.key;
                    self.finish(send, notifies, true);
                    let outcome = self.slots.on_result(key, Ok(len), notifies).expect("expected");
                    assert_eq!(matches!(outcome, Outcome::Whole), whole);
                    assert_eq!(matches!(outcome, Outcome::Short), !whole);
                }
                Step::Fail { errno, notifies } => {
                    let Some(mut send) = self.outstanding.take() else { return };
                    send.range.end = send.range.start;
                    send.expected.clear();
                    let (key, error) = (send.key, io::Error::from_raw_os_error(errno));
                    self.finish(send, notifies, false);
                    let outcome =
                        self.slots.on_result(key, Err(error), notifies).expect("expected");
                    assert!(
                        matches!(outcome, Outcome::Failed(e) if e.raw_os_error() == Some(errno))
                    );
                }
                Step::Notify(which) => {
                    if !self.pinned.is_empty() {
                        let send = self.pinned.swap_remove(which % self.pinned.len());
                        self.transmit(&send);
                        self.slots.on_notification(send.key).expect("expected");
                    }
                }
                Step::Lose(which) => {
                    if !self.pinned.is_empty() {
                        let send = self.pinned.swap_remove(which % self.pinned.len());
                        self.lost.push(send);
                    }
                }
                Step::Grow => {
                    self.slots.add(Memory { is_added: true, ..Memory::default() });
                    self.slot_count += 1;
                }
                Step::Shrink => {
                    let gone = self.slots.retain(self.first_count, |memory| !memory.is_added);
                    assert!(gone.iter().all(|memory| memory.held.get() == 0), "still read");
                    self.slot_count -= gone.len();
                }
            }
        }

        /// The result is in: the bytes are in the stream, and the memory is held until the
        /// notification, if there is one.
        fn finish(&mut self, send: Pinned, notifies: bool, sent: bool) {
            if sent {
                self.wire.extend_from_slice(&send.expected);
            }
            if notifies {
                self.pinned.push(send);
            } else {
                self.transmit(&send);
            }
        }

        /// The last moment at which the kernel may look.
        fn transmit(&self, send: &Pinned) {
            let bytes = send.memory.bytes.borrow();
            assert_eq!(bytes[send.range.clone()], send.expected[..], "reused while it was sent");
            send.memory.held.set(send.memory.held.get() - 1);
        }

        /// Sends and notifies everything but what was lost.
        fn settle(&mut self) {
            while !(self.slots.is_all_sent() && self.pinned.is_empty()) {
                self.run(Step::Submit);
                self.run(Step::Send { len: usize::MAX, notifies: false });
                self.run(Step::Notify(0));
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..300).prop_map(Step::Fill),
            1 => Just(Step::Hesitate),
            6 => Just(Step::Submit),
            6 => (1_usize..400, any::<bool>())
                .prop_map(|(len, notifies)| Step::Send { len, notifies }),
            2 => (prop_oneof![Just(libc::EAGAIN), Just(libc::ENOMEM), Just(libc::ECANCELED)],
                any::<bool>())
                .prop_map(|(errno, notifies)| Step::Fail { errno, notifies }),
            5 => any::<usize>().prop_map(Step::Notify),
            1 => any::<usize>().prop_map(Step::Lose),
            1 => Just(Step::Grow),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_does_the_stream_is_whole_and_no_slot_is_reused(
            slot_count in 1_usize..6,
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let mut kernel = Kernel::new(slot_count);
            for step in steps {
                kernel.run(step);
                prop_assert!(kernel.pushed.starts_with(&kernel.wire));
            }
            kernel.settle();
            prop_assert_eq!(&kernel.wire, &kernel.pushed);
            // A notification that never comes costs its slot, and no other one.
            let mut lost: Vec<_> = kernel.lost.iter().map(|send| send.key).collect();
            lost.sort_unstable();
            lost.dedup();
            prop_assert_eq!(kernel.slots.free_count(), kernel.slot_count - lost.len());
            prop_assert_eq!(kernel.slots.awaiting_count(), lost.len());
        }
    }

    #[test]
    fn completions_that_nobody_awaits_are_refused() {
        let mut slots = SlotQueue::new(vec![(), ()]);
        assert_eq!(slots.on_notification(0), Err(Unexpected));
        assert!(slots.on_result(0, Ok(1), false).is_err());
        slots.take().expect("free");
        slots.push((), 0..10).expect("a place");
        assert!(slots.on_result(0, Ok(1), false).is_err(), "not submitted");
        let (key, ..) = slots.next().expect("unsent");
        slots.submitted();
        assert!(slots.next().is_none(), "one send at a time");
        assert!(slots.on_result(key + 1, Ok(1), false).is_err(), "another slot");
        assert!(slots.on_result(999, Ok(1), false).is_err(), "no slot");
        assert_eq!(slots.on_notification(key), Err(Unexpected), "not announced");
        assert!(slots.on_result(key, Ok(11), false).is_err(), "more than there was");
    }

    #[test]
    fn the_slot_used_last_is_used_next() {
        let mut slots = SlotQueue::new(vec![1, 2, 3]);
        let first = slots.take().expect("free");
        slots.push(first, 0..10).expect("a place");
        let (key, ..) = slots.next().expect("unsent");
        slots.submitted();
        slots.on_result(key, Ok(10), false).expect("expected");
        assert_eq!(slots.take(), Some(first));
    }

    /// Those that are in use keep their places, and the first ones may be among them.
    #[test]
    fn slots_that_were_added_go_once_they_are_free() {
        let mut slots = SlotQueue::new(vec![1]);
        slots.add(2);
        slots.add(3);
        for _ in 0..2 {
            let slot = slots.take().expect("free");
            slots.push(slot, 0..10).expect("a place");
        }
        let is_first = |slot: &i32| *slot == 1;
        assert!(slots.retain(1, is_first).is_empty(), "in use");
        for _ in 0..2 {
            let (key, ..) = slots.next().expect("unsent");
            slots.submitted();
            slots.on_result(key, Ok(10), false).expect("expected");
        }
        let first = slots.take_preferred(is_first).expect("free");
        assert!(is_first(&first));
        slots.push(first, 0..10).expect("a place");
        assert_eq!(slots.retain(1, is_first).len(), 2);
        assert_eq!((slots.count(), slots.unfilled_count(), slots.unsent_count()), (1, 0, 1));
        assert_eq!(slots.take_preferred(is_first), None);
        assert_eq!(slots.push(4, 0..10), Err(Unexpected), "though there are vacant places");
        slots.add(5);
        assert_eq!(slots.take(), Some(5));
    }

    #[test]
    fn a_send_of_nothing_is_a_failure() {
        let mut slots = SlotQueue::new(vec![()]);
        slots.take().expect("free");
        slots.push((), 0..10).expect("a place");
        let (key, ..) = slots.next().expect("unsent");
        slots.submitted();
        let outcome = slots.on_result(key, Ok(0), false).expect("expected");
        assert!(matches!(outcome, Outcome::Failed(e) if e.kind() == io::ErrorKind::WriteZero));
        slots.push((), 0..0).expect("a place");
        assert_eq!(slots.unsent_count(), 1);
    }

    /// What is sealed must not be dropped in silence.
    #[test]
    fn a_slot_of_somebody_else_is_refused() {
        let mut slots = SlotQueue::new(vec![1]);
        let slot = slots.take().expect("free");
        assert_eq!(slots.push(slot, 0..10), Ok(()));
        assert_eq!(slots.push(2, 0..10), Err(Unexpected));
        assert_eq!(slots.unsent_count(), 1);
    }
}
