/* A folder that holds only a small model's config.json: enough with made-up weights. */
#ifndef TESTS_UNIT_WORKER_TINY_MODEL_H
#define TESTS_UNIT_WORKER_TINY_MODEL_H

enum { TINY_VOCAB = 256, TINY_POSITIONS = 512 };

/* 2 layers, hidden 64, 8 query and 4 KV heads of 16, FFN 128, 256 tokens, 512 positions; family:
 * "llama", "qwen2" (biases) or "qwen3" (QK-norm). Aborts the test program when it cannot. */
void tiny_model_make(const char *family, char folder_out[64]);
void tiny_model_make_long(const char *family, int positions, char folder_out[64]);
/* A llama with other KV heads: 1, 2, 4 or 8. */
void tiny_model_make_heads(int kv_heads, int positions, char folder_out[64]);
/* That with heads of another size. */
void tiny_model_make_wide(int kv_heads, int head_dim, int positions, char folder_out[64]);
void tiny_model_remove(const char *folder);

#endif
