//! Reranking: the shapes of Jina, Cohere and Text Embeddings Inference, over a model that likes long texts.

use llm_server::engine::task::Pooling;
use serde_json::{Value, json};

use crate::support::{Reader, refusals, value};

fn documents() -> Value {
    json!(["ab", "abcdefgh", {"text": "abcd"}])
}

#[tokio::test]
async fn documents_come_back_by_relevance() {
    let reader = Reader::ready(Pooling::Rank);
    let body = json!({"model": "org/fake", "query": "q", "documents": documents()});
    insta::assert_snapshot!(reader.show_post("/v1/rerank", body).await, @r#"
    200 OK
    content-type: application/json

    {"object":"list","model":"org/fake","results":[{"index":1,"relevance_score":0.98201376},{"index":2,"relevance_score":0.5},{"index":0,"relevance_score":0.11920292}],"usage":{"prompt_tokens":26,"total_tokens":26}}
    "#);
}

#[tokio::test]
async fn the_best_may_be_asked_for_with_their_texts() {
    let reader = Reader::ready(Pooling::Rank);
    let body =
        json!({"query": "q", "documents": documents(), "top_n": 2, "return_documents": true});
    insta::assert_snapshot!(reader.show_post("/rerank", body).await, @r#"
    200 OK
    content-type: application/json

    {"object":"list","model":"org/fake","results":[{"index":1,"relevance_score":0.98201376,"document":{"text":"abcdefgh"}},{"index":2,"relevance_score":0.5,"document":{"text":"abcd"}}],"usage":{"prompt_tokens":26,"total_tokens":26}}
    "#);
}

#[tokio::test]
async fn texts_are_answered_as_text_embeddings_inference_does() {
    let reader = Reader::ready(Pooling::Rank);
    let body = json!({"query": "q", "texts": ["ab", "abcdefgh"]});
    insta::assert_snapshot!(reader.show_post("/rerank", body).await, @r#"
    200 OK
    content-type: application/json

    [{"index":1,"score":0.98201376},{"index":0,"score":0.11920292}]
    "#);
    let body =
        json!({"query": "q", "texts": ["ab", "abcdefgh"], "raw_scores": true, "return_text": true});
    insta::assert_snapshot!(reader.show_post("/rerank", body).await, @r#"
    200 OK
    content-type: application/json

    [{"index":1,"score":4.0,"text":"abcdefgh"},{"index":0,"score":-2.0,"text":"ab"}]
    "#);
}

#[tokio::test]
async fn what_is_too_long_loses_its_end_where_that_is_asked_for() {
    let reader = Reader::ready(Pooling::Rank);
    let body = json!({"query": "q", "texts": ["x".repeat(40), "ab"], "truncate": true});
    insta::assert_snapshot!(reader.show_post("/rerank", body).await, @r#"
    200 OK
    content-type: application/json
    x-warning: texts[0]: cut from 44 to 32 tokens

    [{"index":0,"score":1.0},{"index":1,"score":0.11920292}]
    "#);
    let cases = [
        json!({"query": "q", "texts": ["a"], "truncate": 1}),
        json!({"query": "q", "texts": ["a"], "truncate": true, "truncation_direction": "Left"}),
        json!({"query": "q".repeat(40), "texts": ["a"], "truncate": true}),
    ];
    let told = refusals(async |body| reader.post("/rerank", body).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 truncate invalid_value | truncate: expected true or false, got 1
    400 truncation_direction invalid_value | truncation_direction: expected "Right", got "Left"
    400 texts[0] context_length_exceeded | texts[0]: 44 tokens are more than the 32 that can be read (the server's engine.ubatch)
    "#);
}

#[tokio::test]
async fn equals_keep_the_order_of_the_request() {
    let reader = Reader::ready(Pooling::Rank);
    let body = json!({"query": "q", "documents": ["aa", "bb", "cc"]});
    let answer = value(reader.post("/v1/rerank", body).await).await;
    let order = answer["results"].as_array().unwrap().iter();
    let order: Vec<_> = order.map(|one| one["index"].as_u64().unwrap()).collect();
    assert_eq!(order, [0, 1, 2]);
}

#[tokio::test]
async fn what_cannot_be_ranked_is_refused_by_name() {
    let reader = Reader::ready(Pooling::Rank);
    let cases = [
        json!({"documents": ["a"]}),
        json!({"query": "q"}),
        json!({"query": "q", "documents": []}),
        json!({"query": "q", "documents": ["a", {"title": "b"}]}),
        json!({"query": "q", "texts": "a"}),
        json!({"query": "q", "documents": ["a"], "top_n": 0}),
        json!({"query": "q", "documents": ["a"], "max_chunks_per_doc": 3}),
        json!({"query": "q", "documents": ["a", "x".repeat(40)]}),
    ];
    let told = refusals(async |body| reader.post("/v1/rerank", body).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 query invalid_value | query: expected a string that is not empty, but it is missing
    400 documents invalid_value | documents: expected an array of 1 to 2048 documents, but it is missing
    400 documents invalid_value | documents: expected an array of 1 to 2048 documents, got an array of 0
    400 documents[1] invalid_value | documents[1]: expected a string, or an object whose text is one, not empty
    400 texts invalid_value | texts: expected an array, got "a"
    400 top_n invalid_value | top_n: expected an integer from 1 to 2048, got 0
    400 max_chunks_per_doc invalid_value | max_chunks_per_doc: this server does not support it; leave it out
    400 documents[1] context_length_exceeded | documents[1]: 44 tokens are more than the 32 that can be read (the server's engine.ubatch)
    "#);
}
