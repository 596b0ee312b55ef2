use serde_json::Value;

use super::*;

#[tokio::test]
async fn a_failure_is_the_last_record_of_a_transfer() {
    for _ in 0..10 {
        let (lines, received) = mpsc::channel(LINES_AHEAD);
        let lines = Lines::to(lines);
        let work = async move {
            for id in ["first", "second", "third"] {
                let id = id.to_owned();
                lines.send(Line::Partial { id }).await?;
            }
            Err(CommandError::NoStore)
        };
        let records: Vec<_> = records(work, received).collect().await;
        let records = records
            .iter()
            .map(|text| serde_json::from_str::<Value>(text).unwrap());
        let records: Vec<_> = records
            .map(|record| (record["event"].clone(), record["id"].clone()))
            .collect();
        let partial = |id: &str| (Value::from("partial"), Value::from(id));
        let expected = [
            partial("first"),
            partial("second"),
            partial("third"),
            (Value::from("error"), Value::Null),
        ];
        assert_eq!(records, expected);
    }
}
