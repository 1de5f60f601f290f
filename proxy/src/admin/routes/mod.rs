//! What the admin interface offers: a file for each path, and a line here.

mod health;
mod index;
mod metrics;
mod ready;
mod reload;

use super::table::Route;

/// In the order of docs/operations.md.
pub const ROUTES: &[&Route] = &[
    &index::ROUTE,
    &ready::ROUTE,
    &health::ROUTE,
    &metrics::ROUTE,
    &reload::ROUTE,
];

#[cfg(test)]
mod tests {
    use super::ROUTES;

    /// The documents have what is offered, and nothing else.
    #[test]
    fn the_documents_have_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let text = std::fs::read_to_string(path).expect("docs/operations.md");
        let documented: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| `GET /") || line.starts_with("| `POST /"))
            .collect();
        let line =
            |r: &&super::Route| format!("| `{} {}` | {} |", r.access.method(), r.path, r.about);
        let offered: Vec<String> = ROUTES.iter().map(line).collect();
        assert_eq!(documented, offered);
    }
}
