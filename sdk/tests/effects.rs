//! Verdicts that come later, performed by the harness.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use sluicegate_sdk::effect::{self, Error};
use sluicegate_sdk::http::{self, CallRequest};
use sluicegate_sdk::store::{self, Swap};
use sluicegate_sdk::testing::{Harness, TestRequest, TestResponse, TestStream, json};
use sluicegate_sdk::*;

/// Does what the path says, and replies with what came of it.
struct Waits {
    pool: CalledPool,
    seen: Rc<RefCell<Vec<String>>>,
}

/// Says that it was dropped.
struct Noted(Rc<RefCell<Vec<String>>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.borrow_mut().push("dropped".into());
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn waited(path: String, pool: CalledPool, seen: Rc<RefCell<Vec<String>>>) -> RequestVerdict {
    let _noted = Noted(seen.clone());
    let said = match path.as_str() {
        "/now" => String::new(),
        "/sleep" => {
            effect::join(effect::sleep(ms(100)), effect::sleep(ms(70))).await;
            effect::sleep(ms(5)).await;
            "slept".into()
        }
        "/long" => {
            effect::sleep(ms(150_000)).await;
            "slept".into()
        }
        "/many" => {
            let all = (0..20).map(|n| async move {
                effect::sleep(ms(n)).await;
                n
            });
            format!("{:?}", effect::join_all(all).await)
        }
        "/store" => {
            let first = store::increment("n", 2, None).await;
            let second = store::increment("n", 3, ms(10)).await;
            let text = store::get("n").await;
            let swaps = [
                store::compare_and_set("s", None, "a", ms(10)).await,
                store::compare_and_set("s", None, "b", None).await,
                store::compare_and_set("s", Some(b"a"), "b", None).await,
            ];
            let bad = store::increment("s", 1, None).await;
            store::set("t", "1", ms(10)).await.unwrap();
            effect::sleep(ms(20)).await;
            let gone = store::get("t").await;
            store::delete("s").await.unwrap();
            assert_eq!(swaps[0], Ok(Swap::Set));
            assert_eq!(swaps[1], Ok(Swap::Differs(Some(b"a".to_vec()))));
            assert_eq!(swaps[2], Ok(Swap::Set));
            format!("{first:?} {second:?} {text:?} {bad:?} {gone:?}")
        }
        "/nested" => {
            effect::sleep(ms(1)).await;
            return RequestVerdict::later(async {
                effect::sleep(ms(1)).await;
                Reply::new(200).body("inner").into()
            });
        }
        path => {
            let request = CallRequest::get(path).header("x-a", "1").timeout(ms(30));
            match http::call(pool, request).await {
                Ok(answer) => {
                    let kind = answer.field("x-kind").and_then(|kind| kind.to_str());
                    format!(
                        "{} {} {}",
                        answer.status(),
                        kind.unwrap_or("-"),
                        String::from_utf8_lossy(answer.body())
                    )
                }
                Err(error) => {
                    seen.borrow_mut().push(error.to_string());
                    error.to_string()
                }
            }
        }
    };
    Reply::new(200).body(said).into()
}

#[sluicegate_sdk::filter]
impl Filter for Waits {
    type Settings = ();

    fn configure(_: (), setup: &mut Setup) -> Result<Self, Diagnostics> {
        setup.uses_store();
        Ok(Self {
            pool: setup.called_pool("auth", ""),
            seen: Rc::default(),
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let path = request.path().to_str().unwrap_or("").to_owned();
        let later = RequestVerdict::later(waited(path, self.pool, self.seen.clone()));
        if request.method() == "PUT" {
            // Another answer after all.
            return RequestVerdict::next();
        }
        later.state(7)
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        let state = response.state();
        ResponseVerdict::later(async move {
            effect::sleep(ms(state)).await;
            ResponseVerdict::next().set("x-state", state.to_string())
        })
    }

    fn connect(&mut self, _: &Stream<'_>) -> StreamVerdict {
        StreamVerdict::later(async {
            effect::sleep(ms(3)).await;
            StreamVerdict::drop()
        })
    }
}

fn harness() -> Harness<Waits> {
    let mut harness = Harness::<Waits>::new(json!(null)).unwrap();
    harness.on_call(|call| {
        assert_eq!((call.pool.as_str(), call.method.as_str()), ("auth", "GET"));
        assert_eq!(call.field("x-a"), Some("1"));
        match call.path.as_str() {
            "/late" => Err(Error::Timeout),
            "/large" => Ok(TestResponse::new(200).body([0; 70_000])),
            _ => Ok(TestResponse::new(403).field("X-Kind", "auth").body("no")),
        }
    });
    harness
}

fn said(harness: &mut Harness<Waits>, path: &str) -> String {
    let answer = harness.request(TestRequest::get(path));
    String::from_utf8(answer.body().to_vec()).unwrap()
}

#[test]
fn what_does_not_wait_is_decided_at_once() {
    let mut harness = harness();
    assert_eq!(said(&mut harness, "/now"), "");
    assert_eq!(harness.elapsed(), Duration::ZERO);
}

#[test]
fn sleeps_side_by_side_take_the_longest_and_one_after_the_other_the_sum() {
    let mut harness = harness();
    assert_eq!(said(&mut harness, "/sleep"), "slept");
    assert_eq!(harness.elapsed(), ms(105));
    assert_eq!(said(&mut harness, "/long"), "slept");
    assert_eq!(harness.elapsed(), ms(150_105));
}

#[test]
fn more_than_one_verdict_holds_are_asked_for_in_several() {
    let mut harness = harness();
    let all: Vec<u64> = (0..20).collect();
    assert_eq!(said(&mut harness, "/many"), format!("{all:?}"));
    assert_eq!(harness.elapsed(), ms(15 + 19));
}

#[test]
fn the_store_does_what_its_names_say() {
    let mut harness = harness();
    harness.store("n", "40");
    assert_eq!(
        said(&mut harness, "/store"),
        format!(
            "Ok(42) Ok(45) {:?} Err(Invalid) Ok(None)",
            Ok::<_, Error>(Some(b"45".to_vec()))
        )
    );
    assert_eq!(harness.stored("n"), Some(&b"45"[..]));
    assert_eq!(harness.stored("s"), None);
}

#[test]
fn calls_answer_or_fail() {
    let mut harness = harness();
    assert_eq!(said(&mut harness, "/check"), "403 auth no");
    assert_eq!(said(&mut harness, "/large"), "too-large");
    assert_eq!(said(&mut harness, "/late"), "timeout");
    assert_eq!(harness.elapsed(), ms(30));
}

#[test]
fn one_verdict_that_comes_later_may_be_another() {
    assert_eq!(said(&mut harness(), "/nested"), "inner");
}

#[test]
fn other_phases_wait_too_and_state_is_kept() {
    let mut harness = harness();
    let mut exchange = harness.exchange(TestRequest::get("/sleep"));
    assert_eq!(exchange.request().status(), Some(200));
    let answer = exchange.response(&TestResponse::new(200));
    assert_eq!(answer.field("x-state"), Some("7"));
    assert!(harness.session(TestStream::new()).connect().is_drop());
}

#[test]
fn nothing_is_kept_of_what_nobody_waits_for() {
    let mut harness = harness();
    harness.request(TestRequest::new("PUT", "/check"));
    assert_eq!(harness.waiting(), 0);
    for n in 0..100 {
        let path = format!("/check{n}");
        harness.exchange(TestRequest::get(&path)).abandon_request();
        harness
            .exchange(TestRequest::get("/sleep"))
            .abandon_request();
    }
    assert_eq!(harness.waiting(), 0);
}

#[test]
#[should_panic(expected = "belong into its future")]
fn edits_of_a_verdict_that_is_not_there_yet_are_a_mistake() {
    let _ = RequestVerdict::later(async {
        effect::sleep(ms(1)).await;
        RequestVerdict::next()
    })
    .set("x", "1");
}

#[test]
#[should_panic(expected = "no effect of the SDK")]
fn there_is_nothing_else_to_wait_for() {
    let _ = RequestVerdict::later(std::future::pending());
}
