//! The verbs of contexts.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::args::{Context as Verb, Form, Global};
use crate::contexts::{Context, ContextFile};
use crate::exit::{Exit, Failure};
use crate::run::{print, shown};
use crate::table::Table;
use crate::target::overlay;

type Result<T> = std::result::Result<T, Failure>;

/// Columns of the list.
const COLUMNS: [&str; 4] = ["name", "selected", "broker", "user"];

/// Carries a verb out.
pub fn run(verb: &Verb, global: &Global) -> Result<()> {
    let mut file = ContextFile::load()?;
    let text = match verb {
        Verb::Add { name, select } => {
            add(&mut file, name, global)?;
            if *select {
                file.select(Some(name));
            }
            file.save()?;
            String::new()
        }
        Verb::Select { name } => {
            file.named(name)?;
            file.select(Some(name));
            file.save()?;
            String::new()
        }
        Verb::List => shown(list(&file)?, global, &COLUMNS)?,
        Verb::Show { name } => {
            let none =
                || Failure::new(Exit::Data, "no context is selected: name one, or `brokerctl context select NAME`");
            let name = name.as_deref().or(file.current()).ok_or_else(none)?;
            show(name, &file.named(name)?, global.output)
        }
        Verb::Delete { name } => {
            file.named(name)?;
            file.delete(name);
            if file.current() == Some(name) {
                file.select(None);
            }
            file.save()?;
            String::new()
        }
    };
    print(&text)
}

fn add(file: &mut ContextFile, name: &str, global: &Global) -> Result<()> {
    let said = &global.place;
    let mut context = file.get(name)?.unwrap_or_default();
    if said.socket.is_some() || said.data_dir.is_some() {
        // It was elsewhere, perhaps: nothing of that means anything here.
        context = Context { socket: said.socket.clone(), data_dir: said.data_dir.clone(), ..Context::default() };
    } else if !said.host.is_empty() {
        (context.socket, context.data_dir) = (None, None);
    }
    overlay(&mut context, said);
    if context.hosts.is_empty() && context.socket.is_none() && context.data_dir.is_none() {
        return Err(Failure::usage("a context says where a broker is: --host HOST, --data-dir DIR or --socket PATH"));
    }
    for path in [
        &mut context.password_file,
        &mut context.ca_file,
        &mut context.certificate,
        &mut context.key,
        &mut context.socket,
        &mut context.data_dir,
    ] {
        *path = path.take().map(absolute).transpose()?;
    }
    file.put(name, &context)?;
    // What was put together is read as it will be.
    file.named(name).map(drop)
}

/// It is looked for from wherever brokerctl will be run.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|error| Failure::new(Exit::Data, format!("{}: {error}", path.display())))
}

fn list(file: &ContextFile) -> Result<Table> {
    let mut rows = Vec::new();
    for name in file.names() {
        let context = file.named(&name)?;
        let selected = file.current() == Some(&name);
        rows.push(vec![json!(name), json!(selected), json!(place(&context)), json!(context.user.unwrap_or_default())]);
    }
    Ok(Table::new(&COLUMNS, rows))
}

fn place(context: &Context) -> String {
    let here = context.socket.as_ref().or(context.data_dir.as_ref());
    here.map_or_else(|| context.hosts.join(", "), |path| path.display().to_string())
}

fn show(name: &str, context: &Context, form: Form) -> String {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let hosts = (!context.hosts.is_empty()).then(|| context.hosts.join(", "));
    let said = [
        ("name", Some(name.to_owned())),
        ("hosts", hosts),
        ("user", context.user.clone()),
        ("password_file", path(&context.password_file)),
        ("password", context.password.as_ref().map(|_| "(not shown)".to_owned())),
        ("ca_file", path(&context.ca_file)),
        ("certificate", path(&context.certificate)),
        ("key", path(&context.key)),
        ("server_name", context.server_name.clone()),
        ("socket", path(&context.socket)),
        ("data_dir", path(&context.data_dir)),
    ];
    let said = said.into_iter().filter_map(|(key, value)| Some((key, value?)));
    match form {
        Form::Json => {
            let object: Map<String, Value> = said.map(|(key, value)| (key.to_owned(), json!(value))).collect();
            format!("{}\n", Value::Object(object))
        }
        Form::Table => said.map(|(key, value)| format!("{key:16}{value}\n")).collect(),
    }
}
