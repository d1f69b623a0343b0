//! The published JSON Schema of recipes and what reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use imager::recipe::Recipe;
use imager::recipe::schema::json_schema;
use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("STERNPOST_SOURCE")).join(path)
}

#[test]
fn the_published_schema_is_current() {
    let path = repository("docs/schemas/recipe.schema.json");
    let wanted = format!("{:#}\n", json_schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == wanted,
        "run: UPDATE_GOLDEN=1 cargo test -p imager schema, and read the diff"
    );
}

/// A field that no table has.
const NOTHING: &str = "nothing-of-that-name";

/// Each table of the schema, in a recipe that gives it a field that it does not have.
const TABLES: [(&str, &str); 15] = [
    ("", "?"),
    ("Debian", "[debian]\n?"),
    ("ByArchitecture", "[kernel]\n?"),
    ("Packages", "[packages]\n?"),
    ("Artefact", "[[artefacts]]\n?"),
    ("Url", "[[artefacts]]\nsources = [{ url = '', ? }]"),
    ("File", "[[artefacts]]\nsources = [{ file = '', ? }]"),
    ("Go", "[[artefacts]]\nsources = [{ go = {}, ? }]"),
    ("Image", "[[artefacts]]\nsources = [{ image = {}, ? }]"),
    ("Program", "[[artefacts]]\nsources = [{ go = { ? } }]"),
    ("OciImage", "[[artefacts]]\nsources = [{ image = { ? } }]"),
    ("Files", "[[files]]\n?"),
    ("Persist", "[[persist]]\n?"),
    ("RecoveryTable", "[recovery]\n?"),
    ("Kubernetes", "[kubernetes]\n?"),
];

#[test]
fn the_reader_knows_the_fields_of_the_schema_and_no_others() {
    let schema = json_schema();
    let defined = schema["$defs"].as_object().unwrap();
    let tables = defined.iter().filter(|(_, table)| is_table(table));
    let tables: BTreeSet<&str> = tables.map(|(name, _)| name.as_str()).collect();
    let tried = TABLES.iter().map(|(name, _)| *name);
    assert_eq!(
        tried
            .filter(|name| !name.is_empty())
            .collect::<BTreeSet<_>>(),
        tables
    );
    for (name, text) in TABLES {
        let table = defined.get(name).unwrap_or(&schema);
        assert_eq!(table["additionalProperties"], false, "{name}");
        let mut fields: BTreeSet<_> = properties(table)
            .map(|(field, _)| field.to_owned())
            .collect();
        // A source is told by one of these, and so each knows them all.
        let kinds = ["url", "file", "go", "image"];
        if kinds.iter().any(|kind| fields.contains(*kind)) {
            fields.extend(kinds.map(str::to_owned));
        }
        assert_eq!(fields_of_the_reader(text), fields, "{name}");
    }
}

/// The fields that the reader lists where it meets one that it does not know.
fn fields_of_the_reader(text: &str) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recipe.toml");
    fs::write(&path, text.replace('?', &format!("{NOTHING} = 1"))).unwrap();
    let error = Recipe::load(&path).unwrap_err().to_string();
    let start = format!("has no field `{NOTHING}`; it has ");
    let (_, list) = error.split_once(&start).expect(&error);
    let list = list.lines().next().unwrap();
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_field_of_the_schema_is_described() {
    fn walk(schema: &Value) {
        for (name, field) in properties(schema) {
            assert!(field["description"].is_string(), "{name}");
        }
    }
    let schema = json_schema();
    walk(&schema);
    schema["$defs"].as_object().unwrap().values().for_each(walk);
}

#[test]
fn the_recipes_of_the_repository_fit_the_schema() {
    let schema = json_schema();
    let mut recipes = Vec::new();
    for folder in ["recipes", "qemu-tests/recipes"] {
        find_recipes(&repository(folder), &mut recipes);
    }
    assert!(recipes.len() > 8, "{recipes:?}");
    for path in recipes {
        let text = fs::read_to_string(&path).unwrap();
        let recipe = toml::from_str::<Value>(&text).unwrap();
        if let Err(error) = fits(&schema, &schema, &recipe) {
            panic!("{}: {error}", path.display());
        }
    }
}

fn find_recipes(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // recipes/initramfs holds lists of kernel modules.
        if path.is_dir() && !path.ends_with("initramfs") {
            find_recipes(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
}

fn is_table(schema: &Value) -> bool {
    schema["type"] == "object"
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// Checks shapes and names; patterns and limits are the reader's.
fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(root, root.pointer(&name[1..]).unwrap(), value);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let tried = choices.iter().map(|schema| fits(root, schema, value));
            let reasons: Vec<_> = tried.filter_map(Result::err).collect();
            return match reasons.len() < choices.len() {
                true => Ok(()),
                false => Err(format!("none of: {}", reasons.join("; "))),
            };
        }
    }
    if let Some(only) = schema.get("const") {
        return require(only == value, || format!("{value} is not {only}"));
    }
    let right = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("`{other}` is not understood"),
    };
    require(right, || {
        format!("{value} is not of type {}", schema["type"])
    })?;
    for item in value.as_array().into_iter().flatten() {
        fits(root, &schema["items"], item)?;
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let field = schema["properties"].get(name);
        let field = field.ok_or_else(|| format!("there is no field `{name}`"))?;
        fits(root, field, value).map_err(|error| format!("{name}: {error}"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        require(value.get(name).is_some(), || format!("`{name}` is missing"))?;
    }
    Ok(())
}

fn require(condition: bool, otherwise: impl Fn() -> String) -> Result<(), String> {
    condition.then_some(()).ok_or_else(otherwise)
}
