//! Requests under way, by number, in the order in which they came.
//!
//! Problem: each request is put here, looked up and taken out again; in a tree that is a tenth of what the frontend does for an
//! order. Idea: numbers only grow, and nearly all answers come in their order, so a queue has a request's place at its end when
//! it comes, and near its front when it goes. Rule kept: they are gone through in their order, so that the same inputs always
//! have the same outputs.

use std::collections::VecDeque;

/// All requests of a kind. Boxed, since where answers come in another order the requests between are moved.
#[derive(Clone, Debug)]
pub(super) struct UnderWay<T>(VecDeque<(u64, Box<T>)>);

impl<T> UnderWay<T> {
    /// None.
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one, whose number is higher than that of any before.
    pub(super) fn push(&mut self, number: u64, request: T) {
        assert!(self.0.back().is_none_or(|(last, _)| *last < number));
        self.0.push_back((number, Box::new(request)));
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.0.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        Some(&self.0[self.place(number)?].1)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number)?;
        Some(&mut self.0[place].1)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Box<T>> {
        let place = self.place(number)?;
        self.0.remove(place).map(|(_, request)| request)
    }

    /// The number of the first of which that holds.
    pub(super) fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<u64> {
        self.iter().find(|(_, request)| is_it(request)).map(|(number, _)| number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.0.iter().map(|(number, request)| (*number, &**request))
    }

    /// Those from that number on.
    pub(super) fn iter_mut_from(&mut self, number: u64) -> impl Iterator<Item = (u64, &mut T)> {
        let first = self.0.partition_point(|(earlier, _)| *earlier < number);
        self.0.range_mut(first..).map(|(number, request)| (*number, &mut **request))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, request)| &mut **request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_found_by_number_and_stay_in_order() {
        let mut under_way = UnderWay::new();
        for number in [1, 2, 5, 6, 9] {
            under_way.push(number, number * 10);
        }
        assert_eq!((under_way.remove(5).map(|request| *request), under_way.remove(5)), (Some(50), None));
        assert_eq!((under_way.get(4), under_way.get(6)), (None, Some(&60)));
        *under_way.get_mut(6).unwrap() += 1;
        let from = |under_way: &mut UnderWay<u64>, number| {
            under_way.iter_mut_from(number).map(|(number, request)| (number, *request)).collect::<Vec<_>>()
        };
        assert_eq!(from(&mut under_way, 0), [(1, 10), (2, 20), (6, 61), (9, 90)]);
        assert_eq!(from(&mut under_way, 3), [(6, 61), (9, 90)]);
        assert_eq!(from(&mut under_way, 10), []);
        assert_eq!((under_way.find(|request| *request > 20), under_way.len()), (Some(6), 4));
    }
}
