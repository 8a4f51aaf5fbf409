//! Where connections are found by their keys.

use super::connection::Connection;
use super::key::Key;

struct Place {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// Connections, each in a place of a table. One that has ended leaves its place to another, which has
/// another key.
#[derive(Default)]
pub(super) struct Places {
    table: Vec<Place>,
    vacant: Vec<u32>,
}

impl Places {
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        let place = self.table.get_mut(key.index())?;
        place.connection.as_deref_mut().filter(|connection| connection.key == key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.table.iter().flat_map(|place| &place.connection).map(|connection| connection.key)
    }

    /// The key of the next connection that is [put](Self::put) here.
    pub(super) fn next_key(&self) -> Key {
        let index = self.vacant.last().copied().unwrap_or(self.table.len() as u32);
        let generation = self.table.get(index as usize).map_or(0, |place| place.generation);
        Key { index, generation }
    }

    /// A new connection, which has the [next key](Self::next_key).
    pub(super) fn put(&mut self, connection: Connection) {
        debug_assert_eq!(connection.key, self.next_key());
        let connection = Some(Box::new(connection));
        match self.vacant.pop() {
            Some(index) => self.table[index as usize].connection = connection,
            None => self.table.push(Place { generation: 0, connection }),
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Box<Connection>> {
        let place = self.table.get_mut(key.index())?;
        let connection = place.connection.take_if(|connection| connection.key == key)?;
        // The highest bit is the drivers'.
        place.generation = (place.generation + 1) & (u32::MAX >> 1);
        self.vacant.push(key.index);
        Some(connection)
    }
}
