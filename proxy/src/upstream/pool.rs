//! A named set of endpoints and how one of them is picked.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::balance::{self, Claim};
use super::comeback::Comebacks;
use super::endpoint::{AdminState, Endpoint};
use super::handlers::Handlers;
use super::health::{EJECTION_FALL, Verdict, ejection};
use super::lease::{Lease, PassiveRule};
use super::registry::{ConnectionClass, EndpointId, Lineage, Registry};
use super::retry::RetryBudget;
use super::roster::{Names, assemble, host_names};
use super::set::{Admission, EndpointSet, Member, Roster};
use crate::config::{Balance, EndpointAddress, PoolConfig};
use crate::error::Reason;
use crate::tls::ClientTls;
use crate::wasm::Handler;

/// Rounds in which one refresh takes account of what changed meanwhile.
const REFRESHES_MAX: u32 = 2;

/// Time a first resolution may take before requests stop waiting for it.
const FIRST_RESOLUTION_MAX: Duration = Duration::from_secs(5);
/// What first checks may take beyond their own timeout.
const FIRST_CHECK_SLACK: Duration = Duration::from_millis(500);
/// `ends_at` when nobody is ejected.
const NEVER: u64 = u64::MAX;

/// Shared by all workers. A pick takes no lock and, as long as nothing has changed, allocates nothing: it reads an
/// immutable set, moves one cursor and counts on one endpoint.
#[derive(Debug)]
pub struct Pool {
    pub config: Arc<PoolConfig>,
    pub(super) tls: Option<Arc<ClientTls>>,
    class: ConnectionClass,
    handlers: Handlers,
    pub(super) lineage: Arc<Lineage>,
    set: ArcSwap<EndpointSet>,
    /// The version of the lineage that `set` was built for.
    seen: AtomicU64,
    /// When the next ejection ends, in the registry's milliseconds.
    ends_at: AtomicU64,
    /// Held while `set` is rebuilt. Workers only ever try it.
    plan: Mutex<Plan>,
    retries: RetryBudget,
    /// The distinct host names among the endpoints.
    pub(super) hosts: Vec<Arc<str>>,
    /// The check differs from that of the pool before: its first answer decides, whatever the old one said.
    pub(super) check_is_new: bool,
    settled: AtomicBool,
    settling: watch::Sender<bool>,
    pub(super) comebacks: Comebacks,
}

#[derive(Debug)]
struct Plan {
    roster: Roster,
    names: Names,
    /// Members whose addresses a name may answer again: they keep their health and their connections until then.
    absent: Vec<Member>,
    /// Every host name was asked for once, or taken over.
    resolved: bool,
}

/// What a pick goes by.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// A filter's key. It decides in a pool of any balance.
    pub sticky: Option<&'a [u8]>,
    /// A filter's choice, `ip:port`. Goes before the key when that endpoint may be used.
    pub hint: Option<&'a str>,
    /// What `balance: hash` goes by without a key.
    pub client: IpAddr,
    /// Endpoints tried before: another one is taken if there is one.
    pub exclude: &'a [EndpointId],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PickError {
    #[error("no endpoint may be used")]
    NoHealthy,
    /// Every endpoint that may be used is at `max_connections`.
    #[error("every endpoint is at its limit")]
    Overload,
}

impl PickError {
    pub fn reason(self) -> Reason {
        match self {
            PickError::NoHealthy => Reason::NoHealthyEndpoint,
            PickError::Overload => Reason::Overload,
        }
    }
}

impl Pool {
    /// The pool for `config`. When `previous` (the pool of that name in the generation before) has an equal
    /// configuration it is used on; otherwise the new pool takes over the endpoints that stay, with their health
    /// and counters, and the balancer's position. Changes nothing for `previous`, so a reload may still be given up.
    pub fn from_config(
        config: &Arc<PoolConfig>,
        previous: Option<&Arc<Pool>>,
        registry: &Arc<Registry>,
    ) -> Arc<Self> {
        Self::with(config, None, Handlers::default(), previous, registry)
    }

    /// [`Pool::from_config`] with what was loaded for the configuration's `tls` and for endpoints that are handlers.
    /// Files that have changed make a new pool.
    pub fn with(
        config: &Arc<PoolConfig>,
        tls: Option<ClientTls>,
        handlers: Handlers,
        previous: Option<&Arc<Pool>>,
        registry: &Arc<Registry>,
    ) -> Arc<Self> {
        let files = |tls: Option<&ClientTls>| tls.map(|tls| tls.files().to_vec());
        let previous_tls = previous.and_then(|p| p.tls.as_ref());
        let same_files = files(tls.as_ref()) == files(previous_tls.map(|tls| &**tls));
        if let Some(previous) = previous
            && previous.config == *config
            && same_files
            && previous.handlers.are_same(&handlers)
        {
            return Arc::clone(previous);
        }
        // A pool that only changes otherwise goes on with its connections and its sessions.
        let same_class = previous.filter(|p| {
            same_files
                && p.handlers.are_same(&handlers)
                && p.config.tls == config.tls
                && p.config.protocol == config.protocol
        });
        let (tls, class) = match same_class {
            Some(previous) => (previous.tls.clone(), previous.class),
            None => (tls.map(Arc::new), registry.connection_class()),
        };
        let hosts = host_names(config);
        let lineage = match previous {
            Some(previous) => Arc::clone(&previous.lineage),
            None => Lineage::new(Arc::clone(registry)),
        };
        let (mut names, mut before) = previous.map(|p| p.carried_over()).unwrap_or_default();
        // What is not asked for any more would be believed when it is again.
        names.retain(|name, _| hosts.contains(name));
        let roster = Roster::new(assemble(config, &names, &before, &lineage));
        let resolved = hosts.iter().all(|host| names.contains_key(host));
        let is_of = |members: &[Member], id| members.iter().any(|m| m.endpoint.id == id);
        let survives = |m: &Member| is_of(&before, m.endpoint.id);
        let checks = |p: &Arc<Pool>| p.config.check.as_ref().map(|c| c.kind.clone());
        let set = EndpointSet::new(&roster, admission(config));
        // A pool that can serve from what it took over keeps nobody waiting.
        let serves = !set.eligible.is_empty() && roster.members.iter().any(survives);
        // Addresses of its names that may be answered again.
        before.retain(|was| {
            let (host, port) = (was.endpoint.host(), was.endpoint.address.port());
            let is_named = config
                .endpoints
                .iter()
                .any(|endpoint| match &endpoint.address {
                    EndpointAddress::Name {
                        host: name,
                        port: of,
                    } => host == Some(&**name) && *of == port,
                    _ => false,
                });
            is_named && !is_of(&roster.members, was.endpoint.id)
        });
        let comebacks = Comebacks::new(&set, previous.map(|p| &p.comebacks));
        let pool = Self {
            check_is_new: previous
                .is_none_or(|p| checks(p) != config.check.as_ref().map(|c| c.kind.clone())),
            config: Arc::clone(config),
            tls,
            class,
            handlers,
            seen: AtomicU64::new(lineage.version().wrapping_sub(1)),
            lineage,
            set: ArcSwap::from_pointee(set),
            ends_at: AtomicU64::new(NEVER),
            plan: Mutex::new(Plan {
                roster,
                names,
                absent: before,
                resolved,
            }),
            retries: RetryBudget::new(registry.now_ms(), previous.map(|p| &p.retries)),
            hosts,
            settled: AtomicBool::new(serves),
            settling: watch::Sender::new(serves),
            comebacks,
        };
        if pool.config.balance == Balance::Hash || previous.is_some_and(|p| p.hashes()) {
            pool.prepare_hash();
        }
        pool.refresh();
        Arc::new(pool)
    }

    /// An endpoint for one exchange or session; it counts there until the lease is dropped.
    ///
    /// The hint decides, then the sticky key, then the balance. Excluded endpoints are taken when there is no other.
    pub fn pick(&self, pick: &Pick<'_>) -> Result<Lease, PickError> {
        if self.is_stale() {
            self.refresh();
        }
        let set = self.set.load();
        let mut claim = Claim {
            set: &set,
            lineage: &self.lineage,
            exclude: pick.exclude,
            limit: self.config.max_connections,
            found_full: false,
            found_excluded: false,
        };
        let key = self.key(pick);
        let mut found = self.choose(&mut claim, pick.hint, key);
        if found.is_none() && claim.found_excluded {
            claim.exclude = &[];
            found = self.choose(&mut claim, pick.hint, key);
        }
        let member = found.and_then(|index| set.member(index));
        let Some(member) = member else {
            return Err(match claim.found_full {
                true => PickError::Overload,
                false => PickError::NoHealthy,
            });
        };
        Ok(Lease::begun(
            Arc::clone(&member.endpoint),
            self.passive_rule(),
            self.tls.clone(),
            pick.client,
        ))
    }

    /// The component that `endpoint` stands for; none when it is an address.
    pub fn handler(&self, endpoint: &Endpoint) -> Option<&Arc<Handler>> {
        self.handlers.of(&endpoint.text)
    }

    /// What its connections are like.
    pub fn connection_class(&self) -> ConnectionClass {
        self.class
    }

    /// [`Pool::pick`], but while the pool's first checks and first resolution are out it waits for them (bounded).
    #[cfg(test)]
    pub async fn pick_settled(&self, pick: &Pick<'_>) -> Result<Lease, PickError> {
        self.first_checks().await;
        self.pick(pick)
    }

    /// Waits until names were resolved and the first check of every endpoint has decided, but no longer than those
    /// may take. Ready at once when that has happened, and for a pool that took over endpoints at reload.
    pub async fn first_checks(&self) {
        if self.is_settled() {
            return;
        }
        let check = self.config.check.as_ref();
        let mut longest = check.map_or(Duration::ZERO, |c| c.timeout + FIRST_CHECK_SLACK);
        if !self.hosts.is_empty() {
            longest += FIRST_RESOLUTION_MAX;
        }
        let mut settling = self.settling.subscribe();
        let decided = settling.wait_for(|settled| *settled);
        if tokio::time::timeout(longest, decided).await.is_err() {
            // Whoever comes later does not wait again.
            self.settle();
        }
    }

    /// Whether [`Pool::first_checks`] is ready at once.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Takes a retry out of the pool's budget; false when that is spent.
    pub fn may_retry(&self) -> bool {
        let (tries, now) = self.new_tries();
        self.retries.spend(tries, self.active(), now)
    }

    /// Whether a retry can be taken out of the pool's budget.
    pub fn has_retry(&self) -> bool {
        let (tries, now) = self.new_tries();
        self.retries.has_one(tries, self.active(), now)
    }

    /// Tries that no budget has been credited with, and the time.
    fn new_tries(&self) -> (u64, u64) {
        let tries = self.members().iter().map(|m| m.endpoint.take_tries()).sum();
        (tries, self.lineage.registry.now_ms())
    }

    /// Exchanges and sessions running on the pool's endpoints.
    pub fn active(&self) -> u64 {
        let set = self.set.load();
        let members = set.roster.members.iter();
        members.map(|m| u64::from(m.endpoint.active())).sum()
    }

    /// Builds the table for sticky keys now, so that the first pick with one does not spend a millisecond on it.
    /// Called by control for pools of listeners with filters; `balance: hash` has done it already.
    pub fn prepare_hash(&self) {
        self.set.load().roster.maglev();
    }

    /// The endpoints, in the order of the configuration.
    pub fn members(&self) -> Arc<[Member]> {
        Arc::clone(&self.set.load().roster.members)
    }

    /// Whether any endpoint gets new traffic.
    pub fn is_available(&self) -> bool {
        if self.is_stale() {
            self.refresh();
        }
        !self.set.load().eligible.is_empty()
    }

    // ------------------------------------------------------------ for the room

    /// Times the addresses of a host name were dropped because it has none any more.
    pub fn names_gone(&self) -> u64 {
        self.lineage.names_gone()
    }

    /// Host `name` resolved to addresses before.
    pub(super) fn knows(&self, name: &Arc<str>) -> bool {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.names.contains_key(name)
    }

    /// Host names that have no address now.
    pub fn unresolved(&self) -> usize {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let has_none = |host: &&Arc<str>| plan.names.get(*host).is_none_or(|ips| ips.is_empty());
        self.hosts.iter().filter(has_none).count()
    }

    /// Host `name` resolved to `addresses`, and may come back to those that are `absent`. Called by control.
    pub(super) fn resolved(&self, name: &Arc<str>, addresses: &[IpAddr], absent: &[IpAddr]) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let same = plan.names.get(name).is_some_and(|old| **old == *addresses);
        if same {
            return;
        }
        plan.names.insert(Arc::clone(name), addresses.into());
        let mut before = std::mem::take(&mut plan.absent);
        before.extend_from_slice(&plan.roster.members);
        let members = assemble(&self.config, &plan.names, &before, &self.lineage);
        before.retain(|was| {
            let endpoint = &was.endpoint;
            let here = endpoint.host() == Some(name);
            let may_return = !here || absent.contains(&endpoint.address.ip());
            may_return && !members.iter().any(|m| m.endpoint.id == endpoint.id)
        });
        plan.absent = before;
        let hashes = plan.roster.has_maglev();
        plan.roster = Roster::new(members);
        if hashes {
            plan.roster.maglev();
        }
        tracing::info!(pool = %self.config.name, host = %name, addresses = addresses.len(), "name resolved");
        self.store(EndpointSet::new(&plan.roster, admission(&self.config)));
    }

    /// Every name was asked for once, with success or without.
    pub(super) fn resolution_done(&self) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.resolved = true;
        drop(plan);
        self.refresh();
    }

    /// Brings the set up to date with how the endpoints stand. Whoever notices a change calls it; a second caller
    /// leaves the work to the first.
    pub(super) fn refresh(&self) {
        // In a storm of failures there is always more to take account of. What this leaves, the next pick sees.
        for _ in 0..REFRESHES_MAX {
            let plan = match self.plan.try_lock() {
                Ok(plan) => plan,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let version = self.lineage.version();
            let now = self.lineage.registry.now_ms();
            match &self.config.check {
                Some(check) => ejection::doubt(&plan.roster.members, check.fall, now),
                None => {
                    let ends_at = ejection::judge(&plan.roster.members, now).unwrap_or(NEVER);
                    self.ends_at.store(ends_at, Ordering::Relaxed);
                }
            }
            // Only the holder of the plan stores sets, so this is the set of the plan's roster.
            if let Some(set) = self.set.load().revised(admission(&self.config)) {
                self.store(set);
            }
            self.settle_if_decided(&plan);
            self.seen.store(version, Ordering::Release);
            drop(plan);
            if self.lineage.version() == version {
                return;
            }
        }
    }

    // ------------------------------------------------------------

    /// Only for the holder of the plan.
    fn store(&self, set: EndpointSet) {
        let set = Arc::new(set);
        self.set.store(Arc::clone(&set));
        let now = self.lineage.registry.now_ms();
        self.comebacks.follow(&set, now);
    }

    fn choose(&self, claim: &mut Claim<'_>, hint: Option<&str>, key: Option<u64>) -> Option<u16> {
        if let Some(index) = hint.and_then(|text| claim.set.welcome(text))
            && claim.take(index)
        {
            return Some(index);
        }
        claim.choose(self.config.balance, key)
    }

    fn key(&self, pick: &Pick<'_>) -> Option<u64> {
        match (pick.sticky, self.config.balance) {
            (Some(key), _) => Some(balance::hash(key)),
            (None, Balance::Hash) => Some(match pick.client.to_canonical() {
                IpAddr::V4(ip) => balance::hash(&ip.octets()),
                IpAddr::V6(ip) => balance::hash(&ip.octets()),
            }),
            (None, _) => None,
        }
    }

    fn passive_rule(&self) -> PassiveRule {
        let check = self.config.check.as_ref();
        PassiveRule {
            handled: self.config.is_handled(),
            fall: check.map_or(EJECTION_FALL, |c| c.fall),
        }
    }

    /// Something changed since the set was built. Reads the clock only while somebody is ejected.
    fn is_stale(&self) -> bool {
        let ends_at = self.ends_at.load(Ordering::Relaxed);
        self.lineage.version() != self.seen.load(Ordering::Acquire)
            || (ends_at != NEVER && self.lineage.registry.now_ms() >= ends_at)
    }

    fn hashes(&self) -> bool {
        self.set.load().roster.has_maglev()
    }

    /// What the names resolved to, and all members that were heard of, absent ones too.
    fn carried_over(&self) -> (Names, Vec<Member>) {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let members = plan.roster.members.iter().chain(&plan.absent);
        (plan.names.clone(), members.cloned().collect())
    }

    /// The endpoints whose connections are worth keeping: the members, and those whose addresses a name may answer again.
    pub fn endpoint_ids(&self) -> Vec<EndpointId> {
        let (_, members) = self.carried_over();
        members.iter().map(|m| m.endpoint.id).collect()
    }

    fn settle_if_decided(&self, plan: &Plan) {
        let mut members = plan.roster.members.iter();
        let undecided = |m: &Member| {
            m.endpoint.verdict() == Verdict::Unknown
                && m.endpoint.admin_state() != AdminState::Disabled
        };
        let checked = self.config.check.is_some();
        if !self.is_settled() && plan.resolved && !(checked && members.any(undecided)) {
            self.settle();
        }
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.settling.send_replace(true);
    }
}

fn admission(config: &PoolConfig) -> Admission {
    Admission {
        checked: config.check.is_some(),
        panic: config.panic,
    }
}
