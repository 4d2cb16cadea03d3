//! How many streams a caller may hold at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use evroc_apiserver::ApiError;
use evroc_apiserver::authn::Identity;
use evroc_iam::identity::GROUP_OPERATORS;

/// The streams that one caller may hold. Each costs two tasks, some buffers and a place in a host's tunnel for as long as it lives.
/// Lower would refuse a person with many terminals; higher lets one program take the places of a host's tunnel from everybody else.
pub(super) const OF_A_CALLER: usize = 64;
/// The same for operators, whose programs look after the whole cloud.
pub(super) const OF_AN_OPERATOR: usize = 512;

/// The streams that are held now, by the name of their caller.
#[derive(Default)]
pub(super) struct Places {
    held: Mutex<HashMap<String, usize>>,
}

impl Places {
    /// Takes a place, which is free again when it is dropped.
    ///
    /// # Errors
    /// 429 if the caller holds as many streams as it may.
    pub(super) fn take(self: &Arc<Self>, caller: &Identity) -> Result<Place, ApiError> {
        let limit = if caller.is_in(GROUP_OPERATORS) { OF_AN_OPERATOR } else { OF_A_CALLER };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&caller.user).copied().unwrap_or(0);
        if count >= limit {
            return Err(ApiError::too_many_requests(format!(
                "\"{}\" has {count} consoles, port forwards and logs open, and may have {limit}: close one first",
                caller.user
            )));
        }
        held.insert(caller.user.clone(), count + 1);
        Ok(Place { places: self.clone(), user: caller.user.clone() })
    }
}

/// The place of one stream.
pub(super) struct Place {
    places: Arc<Places>,
    user: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_places_and_does_not_take_those_of_others() {
        let places = Arc::new(Places::default());
        let (ann, ben) = (Identity::new("ann", ["people"]), Identity::new("ben", ["people"]));
        let mut held: Vec<Place> = (0..OF_A_CALLER).map(|_| places.take(&ann).unwrap()).collect();
        let error = places.take(&ann).map(drop).unwrap_err().to_status();
        assert_eq!(error["code"], 429);
        assert!(error["message"].as_str().unwrap().contains("\"ann\" has 64 consoles"), "{error}");
        let of_ben = places.take(&ben).unwrap();
        held.pop();
        held.push(places.take(&ann).unwrap());
        drop((held, of_ben));
        assert!(places.held.lock().unwrap().is_empty(), "a caller without streams costs nothing");
    }

    #[test]
    fn operators_have_more() {
        let places = Arc::new(Places::default());
        let operator = Identity::new("admin", [GROUP_OPERATORS]);
        let held: Vec<Place> = (0..OF_AN_OPERATOR).map(|_| places.take(&operator).unwrap()).collect();
        assert!(places.take(&operator).is_err());
        drop(held);
    }
}
