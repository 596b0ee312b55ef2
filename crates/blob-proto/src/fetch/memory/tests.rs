//! Chunks that arrive twice.

use super::*;

#[tokio::test]
async fn a_chunk_that_arrives_twice_takes_space_once() {
    let content = Bytes::from(vec![7; (1 << 20) + 5]);
    let mut hasher = BlobHasher::new();
    hasher.update(&content).unwrap();
    let list = hasher.finish().list;
    let target = MemoryTarget::new(content.len() as u64);
    let partial = target.partial(list).await.unwrap();
    let (first, last) = (content.slice(..1 << 20), content.slice(1 << 20..));
    for (index, chunk) in [(0, &first), (1, &last), (0, &first), (1, &last)] {
        partial.write(index, chunk.clone()).await.unwrap();
    }
    assert_eq!(partial.missing(), 0);
    partial.finish().await.unwrap();
    assert_eq!(target.take().unwrap(), content);
}
