//! A strict reader of structured fields (RFC 8941): lists of items with parameters, which is what `Proxy-Status` is.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    Token(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub value: Bare,
    pub parameters: Vec<(String, Bare)>,
}

impl Item {
    pub fn parameter(&self, name: &str) -> Option<&Bare> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    }
}

/// The members of a list (RFC 8941 §4.2.1), or what is wrong with it.
pub fn list(text: &str) -> Result<Vec<Item>, String> {
    let mut reader = Reader { text, at: 0 };
    let mut items = Vec::new();
    reader.skip(" ");
    while !reader.rest().is_empty() {
        items.push(reader.item()?);
        reader.skip(" \t");
        if reader.rest().is_empty() {
            return Ok(items);
        }
        reader.expect(',')?;
        reader.skip(" \t");
        if reader.rest().is_empty() {
            return Err("a comma at the end".into());
        }
    }
    Ok(items)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, any_of: &str) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(|c| any_of.contains(c)).len();
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let taken: String = self.rest().chars().take_while(|&c| wanted(c)).collect();
        self.at += taken.len();
        taken
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.at += wanted.len_utf8();
                Ok(())
            }
            found => Err(format!("{wanted:?} wanted at {}, not {found:?}", self.at)),
        }
    }

    fn item(&mut self) -> Result<Item, String> {
        let value = self.bare()?;
        let mut parameters = Vec::new();
        while self.peek() == Some(';') {
            self.expect(';')?;
            self.skip(" ");
            let begins = |c: char| c.is_ascii_lowercase() || c == '*';
            if !self.peek().is_some_and(begins) {
                return Err(format!("no key at {}", self.at));
            }
            let key = self.take(|c| begins(c) || c.is_ascii_digit() || "_-.".contains(c));
            let value = match self.peek() {
                Some('=') => {
                    self.expect('=')?;
                    self.bare()?
                }
                _ => Bare::Boolean(true),
            };
            parameters.push((key, value));
        }
        Ok(Item { value, parameters })
    }

    fn bare(&mut self) -> Result<Bare, String> {
        match self.peek() {
            Some('"') => self.text(),
            Some(c) if c.is_ascii_alphabetic() || c == '*' => {
                let tchar = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(c);
                Ok(Bare::Token(self.take(tchar)))
            }
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let digits = self.take(|c| c.is_ascii_digit() || c == '-');
                let number = digits.parse().map_err(|_| format!("no number: {digits}"))?;
                Ok(Bare::Integer(number))
            }
            Some('?') => {
                self.expect('?')?;
                let value = self.take(|c| c == '0' || c == '1');
                match value.as_str() {
                    "0" => Ok(Bare::Boolean(false)),
                    "1" => Ok(Bare::Boolean(true)),
                    other => Err(format!("no boolean: {other:?}")),
                }
            }
            other => Err(format!("no item begins with {other:?} at {}", self.at)),
        }
    }

    fn text(&mut self) -> Result<Bare, String> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            let c = self.peek().ok_or("a string that does not end")?;
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Bare::Text(text)),
                '\\' => {
                    let c = self.peek().filter(|&c| c == '"' || c == '\\');
                    text.push(c.ok_or("an escape of what needs none")?);
                    self.at += 1;
                }
                ' '..='~' => text.push(c),
                other => return Err(format!("{other:?} in a string")),
            }
        }
    }
}

#[test]
fn what_is_not_well_formed_is_refused() {
    let good = list("a;error=b;details=\"c \\\"d\\\"\";n=-3, \"1e\";x, *t;y=?0").expect("a list");
    assert_eq!(good.len(), 3);
    assert_eq!(
        good[0].parameter("details"),
        Some(&Bare::Text("c \"d\"".into()))
    );
    assert_eq!(good[0].parameter("n"), Some(&Bare::Integer(-3)));
    assert_eq!(good[1].value, Bare::Text("1e".into()));
    assert_eq!(good[2].parameter("y"), Some(&Bare::Boolean(false)));
    for bad in [
        "a,",
        "a b",
        "a;=b",
        "a;E=b",
        "\"open",
        "\"\\x\"",
        "a;b=",
        "!x",
        "a;b=\u{e4}",
        "a,,b",
    ] {
        assert!(list(bad).is_err(), "{bad}");
    }
}
