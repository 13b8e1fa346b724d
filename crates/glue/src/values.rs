//! Single values out of Arrow arrays, whatever width the writer chose.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

/// The string at place `i`, which is not null.
pub(crate) fn string(column: &ArrayRef, i: usize) -> Result<String, String> {
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().value(i).to_owned()),
        DataType::LargeUtf8 => Ok(column.as_string::<i64>().value(i).to_owned()),
        DataType::Utf8View => Ok(column.as_string_view().value(i).to_owned()),
        other => Err(format!("a value of type {other} where a string should be")),
    }
}

/// The integer at place `i`, which is not null.
pub(crate) fn integer(column: &ArrayRef, i: usize) -> Result<i64, String> {
    match column.data_type() {
        DataType::Int8 => Ok(column.as_primitive::<Int8Type>().value(i).into()),
        DataType::Int16 => Ok(column.as_primitive::<Int16Type>().value(i).into()),
        DataType::Int32 => Ok(column.as_primitive::<Int32Type>().value(i).into()),
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().value(i)),
        DataType::UInt8 => Ok(column.as_primitive::<UInt8Type>().value(i).into()),
        DataType::UInt16 => Ok(column.as_primitive::<UInt16Type>().value(i).into()),
        DataType::UInt32 => Ok(column.as_primitive::<UInt32Type>().value(i).into()),
        DataType::UInt64 => {
            let value = column.as_primitive::<UInt64Type>().value(i);
            i64::try_from(value).map_err(|_| format!("{value} is too large"))
        }
        other => Err(format!(
            "a value of type {other} where an integer should be"
        )),
    }
}
