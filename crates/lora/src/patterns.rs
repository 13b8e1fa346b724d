//! A small map that keeps its order.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An ordered map from a pattern to a value: when several patterns match, the first one counts,
/// so the order of the file is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct PatternMap<T>(Vec<(String, T)>);

impl<T> Default for PatternMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PatternMap<T> {
    /// Sets the value of a pattern; a pattern that is already there keeps its place.
    pub fn insert(&mut self, pattern: impl Into<String>, value: T) {
        let pattern = pattern.into();
        match self.0.iter_mut().find(|(known, _)| *known == pattern) {
            Some((_, old)) => *old = value,
            None => self.0.push((pattern, value)),
        }
    }

    /// The value of exactly this pattern.
    pub fn get(&self, pattern: &str) -> Option<&T> {
        let entry = self.0.iter().find(|(known, _)| known == pattern);
        entry.map(|(_, value)| value)
    }

    /// Patterns and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0
            .iter()
            .map(|(pattern, value)| (pattern.as_str(), value))
    }

    /// `true` if there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of patterns.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K: Into<String>, T> FromIterator<(K, T)> for PatternMap<T> {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (pattern, value) in entries {
            map.insert(pattern, value);
        }
        map
    }
}

impl<T: Serialize> Serialize for PatternMap<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, value) in &self.0 {
            map.serialize_entry(pattern, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for PatternMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = PatternMap<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from patterns to values")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut entries: M) -> Result<Self::Value, M::Error> {
                let mut map = PatternMap::default();
                while let Some((pattern, value)) = entries.next_entry::<String, T>()? {
                    map.insert(pattern, value);
                }
                Ok(map)
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_set_twice_keeps_its_place() {
        let map: PatternMap<u8> = [("b", 1), ("a", 2), ("b", 3)].into_iter().collect();
        assert_eq!(map.iter().collect::<Vec<_>>(), [("b", &3), ("a", &2)]);
        assert_eq!((map.len(), map.get("a"), map.get("c")), (2, Some(&2), None));
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(text, r#"{"b":3,"a":2}"#);
        assert_eq!(serde_json::from_str::<PatternMap<u8>>(&text).unwrap(), map);
    }
}
