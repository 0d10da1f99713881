//! Filters on lists and mappings.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error};

use super::{add_filter, invalid, items_of};

/// Deepest nesting that `combine(recursive=true)` and `flatten` follow.
const DEPTH_MAX: usize = 64;

pub(super) fn register(env: &mut Environment<'static>) {
    add_filter(env, "combine", combine);
    add_filter(env, "flatten", flatten);
    add_filter(env, "unique", |list: Value| items_of(&list).map(distinct));
    add_filter(env, "difference", |left: Value, right: Value| {
        let right = items_of(&right)?;
        let kept = items_of(&left)?.into_iter().filter(|item| !right.contains(item)).collect();
        Ok::<_, Error>(distinct(kept))
    });
    add_filter(env, "intersect", |left: Value, right: Value| {
        let right = items_of(&right)?;
        let kept = items_of(&left)?.into_iter().filter(|item| right.contains(item)).collect();
        Ok::<_, Error>(distinct(kept))
    });
    add_filter(env, "union", |left: Value, right: Value| {
        let mut all = items_of(&left)?;
        all.extend(items_of(&right)?);
        Ok::<_, Error>(distinct(all))
    });
    add_filter(env, "dict2items", dict2items);
    add_filter(env, "items2dict", items2dict);
    add_filter(env, "product", product);
}

/// Each item once, where it comes first.
fn distinct(items: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn combine(base: Value, others: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let recursive = kwargs.get::<Option<bool>>("recursive")?.unwrap_or(false);
    let lists = kwargs.get::<Option<String>>("list_merge")?;
    kwargs.assert_all_used()?;
    if !matches!(lists.as_deref(), None | Some("replace")) {
        return Err(invalid("`combine` knows only `list_merge='replace'`"));
    }
    // A list of mappings in the place of one is taken apart.
    let sources = std::iter::once(base).chain(others.0).map(|value| match value.kind() {
        ValueKind::Seq => items_of(&value),
        _ => Ok(vec![value]),
    });
    let mut result: Vec<(Value, Value)> = Vec::new();
    for source in sources {
        for mapping in source? {
            merge(&mut result, &mapping, recursive, DEPTH_MAX)?;
        }
    }
    Ok(Value::from_pairs(result))
}

fn merge(
    into: &mut Vec<(Value, Value)>,
    from: &Value,
    recursive: bool,
    depth: usize,
) -> Result<(), Error> {
    let depth = depth.checked_sub(1).ok_or_else(|| invalid("the mapping is nested too deeply"))?;
    for (key, value) in pairs_of(from)? {
        match into.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old))
                if recursive && old.kind() == ValueKind::Map && value.kind() == ValueKind::Map =>
            {
                let mut merged = pairs_of(old)?;
                merge(&mut merged, &value, recursive, depth)?;
                *old = Value::from_pairs(merged);
            }
            Some((_, old)) => *old = value,
            None => into.push((key, value)),
        }
    }
    Ok(())
}

fn pairs_of(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.kind() != ValueKind::Map {
        return Err(invalid(format!("expected a mapping, found a {}", value.kind())));
    }
    value.try_iter()?.map(|key| value.get_item(&key).map(|item| (key, item))).collect()
}

fn flatten(list: Value, levels: Option<usize>, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let levels = levels.or(kwargs.get::<Option<usize>>("levels")?).unwrap_or(DEPTH_MAX);
    kwargs.assert_all_used()?;
    let mut flat = Vec::new();
    flatten_into(&mut flat, &list, levels.min(DEPTH_MAX))?;
    Ok(flat)
}

/// Ansible leaves nulls out of flattened lists.
fn flatten_into(flat: &mut Vec<Value>, list: &Value, levels: usize) -> Result<(), Error> {
    for item in items_of(list)? {
        match item.kind() {
            ValueKind::Seq if levels > 0 => flatten_into(flat, &item, levels - 1)?,
            ValueKind::None => {}
            _ => flat.push(item),
        }
    }
    Ok(())
}

fn dict2items(mapping: Value, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let key_name = kwargs.get::<Option<String>>("key_name")?.unwrap_or_else(|| "key".into());
    let value_name = kwargs.get::<Option<String>>("value_name")?.unwrap_or_else(|| "value".into());
    kwargs.assert_all_used()?;
    Ok(pairs_of(&mapping)?
        .into_iter()
        .map(|(key, value)| {
            Value::from_pairs([
                (Value::from(key_name.as_str()), key),
                (Value::from(value_name.as_str()), value),
            ])
        })
        .collect())
}

fn items2dict(list: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let key_name = kwargs.get::<Option<String>>("key_name")?.unwrap_or_else(|| "key".into());
    let value_name = kwargs.get::<Option<String>>("value_name")?.unwrap_or_else(|| "value".into());
    kwargs.assert_all_used()?;
    let pairs: Result<Vec<_>, Error> = items_of(&list)?
        .iter()
        .map(|item| Ok((item.get_attr(&key_name)?, item.get_attr(&value_name)?)))
        .collect();
    Ok(Value::from_pairs(pairs?))
}

fn product(left: Value, right: Value) -> Result<Vec<Value>, Error> {
    let right = items_of(&right)?;
    let left = items_of(&left)?;
    if left.len().saturating_mul(right.len()) > 10_000 {
        return Err(invalid("the product has more than 10000 items"));
    }
    Ok(left
        .iter()
        .flat_map(|a| right.iter().map(|b| Value::from(vec![a.clone(), b.clone()])))
        .collect())
}
