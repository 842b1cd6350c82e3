// SPDX-License-Identifier: Apache-2.0
#pragma once
// The keys of a deck, each once: name, place, default (the member's initial value), bounds and meaning.
// Visitors read decks (Section), write them (deck_text.cpp) and print the key reference (key_reference.cpp)
// with these functions.

#include <vector>

#include "train/deck.hpp"
#include "train/yaml_section.hpp"

namespace strata::train {

inline bool is_mamba(model::BlockType type) {
  return type == model::BlockType::mamba1 || type == model::BlockType::mamba2;
}

inline std::vector<Choice<TrainConfig::Strategy>> strategies() {
  return {{"batch", TrainConfig::Strategy::batch}, {"sequence", TrainConfig::Strategy::sequence}};
}
inline std::vector<Choice<std::optional<model::OuterTapes>>> outer_tapes() {
  return {{"auto", std::nullopt},
          {"keep", model::OuterTapes::keep},
          {"rebuild", model::OuterTapes::rebuild},
          {"two_level", model::OuterTapes::two_level}};
}
inline std::vector<Choice<model::Position>> positions() {
  return {
      {"null", model::Position::none}, {"fixed", model::Position::fixed}, {"rope", model::Position::rope}};
}
inline std::vector<Choice<model::BlockType>> block_types() {
  using model::BlockType;
  return {{"transformer", BlockType::transformer},
          {"transformerEncoder", BlockType::transformer_encoder},
          {"mamba1", BlockType::mamba1},
          {"mamba2", BlockType::mamba2}};
}
inline std::vector<Choice<model::Head>> heads() {
  return {{"complete", model::Head::complete}, {"reference", model::Head::reference}};
}

inline std::vector<Choice<model::PatchEncoder>> patch_encoders() {
  return {{"linear", model::PatchEncoder::linear}, {"convolution", model::PatchEncoder::convolution}};
}

template <class Visitor>
void visit_root(Visitor& v) {
  v.nested("params", "mapping", "required", "The model.");
  v.nested("train", "mapping", "required", "How to train it.");
  v.nested("io", "mapping", "required", "What to read and where to write.");
  v.nested("resume", "mapping or null", "null", "The package's form of `train.init_from`.");
  v.ignored("summary", "it describes a run of the package that has ended");
}

/// `params` without the keys that only a deck has.
template <class Visitor>
void visit_model(Visitor& v, model::ModelConfig& m, std::vector<Index>& checkpoint_chunks) {
  v.optional("num_tokens", m.num_tokens, at_least(1, 65536),
             "Size of the vocabulary: the 256 byte values and the pad id.");
  v.optional("pad_token_id", m.pad_token_id, at_least(0, 65535),
             "Id that fills the last patch; it is never scored. An id in 0..255 takes that byte value away.");
  v.optional(
      "pad_row_is_trained", m.pad_row_is_trained, any(),
      "Whether the pad id's rows of the embedding tables are ordinary rows, as in MEGABYTE-pytorch. They "
      "are zero and stay so otherwise.");
  v.required("hidden_dims", m.hidden_dims, at_least(1), "Width of each stage, outermost stage first.");
  v.required("num_layers", m.num_layers, at_least(1), "Layers of each stage.");
  v.required("seq_lens", m.seq_lens, at_least(1),
             "Longest sequence of each stage. From the second stage on it is the patch length.");
  v.list_or_null(
      "train_checkpoint_chunks", checkpoint_chunks, at_least(1),
      "The package's key: for each stage but the first, the least number of chunks its sequences are "
      "processed in. `train.inner_rows` bounds the chunks as well; the smaller ones are taken. Changes speed "
      "and memory only.");
  v.nested("block", "mapping or list", "required",
           "The layers: one mapping for all stages or a list with one mapping per stage. Keys below.");
  v.choice(
      "head", m.head, false, heads(),
      "How stages are wired. `complete`: every byte sees its whole past. `reference`: as in the package.");
  v.choice(
      "patch_encoder", m.patch_encoder, false, patch_encoders(),
      "How bytes become the patches of the stages above the last. `linear`: embedded and projected. "
      "`convolution`: causal convolutions of 3, 5 and 7 bytes go over the embedded bytes first, so that a "
      "patch depends less on where it is cut.");
}

template <class Visitor>
void visit_params(Visitor& v, Deck& deck) {
  visit_model(v, deck.params, deck.train_checkpoint_chunks);
  v.required("input_seq_len", deck.input_seq_len, at_least(1), "Bytes per training window.");
  v.refused("mask_token_id", "masked models are not trained by this program");
  v.refused("mblm_config",
            "masked models are not trained by this program; put the keys of mblm_config into params");
}

/// What blocks of every type have.
template <class Visitor>
void visit_any_block(Visitor& v, model::BlockConfig& b) {
  v.nested("block_type", "transformer, transformerEncoder, mamba1 or mamba2",
           "transformer; mamba2 where d_state is given", "Kind of layer. `mamba` stands for mamba2.");
  v.choice("pos_emb_type", b.pos_emb_type, false, positions(),
           "Positions of this stage: `fixed` adds a learned table, `rope` rotates the embeddings.");
  v.older("patch_pos_emb_type", "the name of `pos_emb_type` in the package before its version 0.1.0");
}

/// Of transformer and transformerEncoder only.
template <class Visitor>
void visit_transformer(Visitor& v, model::BlockConfig& b) {
  v.required("attn_head_dims", b.attn_head_dims, at_least(1, 65536), "Width of an attention head.");
  v.required("attn_num_heads", b.attn_num_heads, at_least(1, 65536), "Number of attention heads.");
  v.required("attn_use_rot_embs", b.attn_use_rot_embs, any(),
             "Rotary positions in attention; the head width must then be even.");
  v.optional("attn_dropout", b.attn_dropout, at_least_below(0, 1),
             "Dropout of attention weights in training.");
  v.optional("cross_patch_attention", b.cross_patch_attention, at_least(0, 65536),
             "Last positions of the patch before whose keys and values attention sees as well (MEGABYTE); 0: "
             "none. For stages below the outermost one, under head `complete`; at most the patch length.");
  v.optional("ff_multiplier", b.ff_multiplier, at_least(1, 1024),
             "Width of the feed-forward layer over the stage's.");
  v.optional("ff_dropout", b.ff_dropout, at_least_below(0, 1),
             "Dropout inside the feed-forward layer in training.");
  v.ignored("use_flash_attn", "attention is always computed block by block, without a matrix of scores");
}

/// Of mamba1 and mamba2 only.
template <class Visitor>
void visit_mamba(Visitor& v, model::BlockConfig& b) {
  v.required(
      "d_state", b.d_state, at_least(1, 65536),
      "Numbers of state per channel. Parameters and time grow with it, the memory of training hardly.");
  v.required("d_conv", b.d_conv, at_least(1, 64), "Inputs that the causal convolution sees.");
  v.required("expand", b.expand, at_least(1, 1024), "Channels inside a layer over the stage's width.");
  if (b.block_type == model::BlockType::mamba1) {
    v.ignored("headdim", "a mamba1 block has no heads");
    return;
  }
  v.required(
      "headdim", b.headdim, at_least(1, 65536),
      "Channels of a head; divides `expand` times the width. mamba1 has no heads and needs no headdim.");
  v.optional("dropout", b.dropout, at_least_below(0, 1),
             "Dropout of the last layer's output in training. Without effect in mamba1.");
}

/// All keys of a block of its type.
template <class Visitor>
void visit_block(Visitor& v, model::BlockConfig& b) {
  visit_any_block(v, b);
  if (is_mamba(b.block_type)) {
    visit_mamba(v, b);
  } else {
    visit_transformer(v, b);
  }
}

template <class Visitor>
void visit_train(Visitor& v, TrainConfig& t) {
  v.required("target_elements", t.target_elements, at_least(1, 0x1p62),
             "Train on at least this many elements over all ranks.");
  v.choice("target_elements_strategy", t.target_elements_strategy, true, strategies(),
           "What an element is: `batch` counts windows, `sequence` counts bytes.");
  v.optional("warmup_steps_perc", t.warmup_steps_perc, at_least(0, 1),
             "Fraction of the optimiser steps in which the learning rate rises.");
  v.required("batch_size", t.batch_size, at_least(1), "Windows per rank and micro-batch.");
  v.optional("shuffle_train", t.shuffle_train, any(),
             "Seeded shuffle of the training windows, anew in each epoch.");
  v.ignored("shuffle_eval", "evaluation reads its windows in order");
  v.optional("max_eval_steps", t.max_eval_steps, at_least(0),
             "Evaluate on at most this many batches while training; null or 0: the whole split.");
  v.required("learning_rate", t.learning_rate, above(0), "Peak of the learning rate (Adam).");
  v.optional("gradient_clipping", t.gradient_clipping, above(0),
             "Largest global norm of the gradient; null: none.");
  v.optional("gradient_accumulate_every", t.gradient_accumulate_every, at_least(1),
             "Micro-batches per optimiser step.");
  v.ignored("masking_proba", "only masked models use it");
  v.optional(
      "init_from", t.init_from, any(),
      "Checkpoint, or folder of a run, whose weights a new run starts from; null: random weights. Keys of "
      "`params` that the deck leaves out are those of the checkpoint. (An interrupted run goes on by itself "
      "without this key.)");
  v.optional("seed", t.seed, at_least(0, 0x1p62), "Seed of initial weights, data order and dropout.");
  v.optional("weight_decay", t.weight_decay, at_least(0, 1e6),
             "Decoupled weight decay of matrices and tables (AdamW); 0 is the package's Adam.");
  v.optional("beta1", t.beta1, at_least_below(0, 1), "Decay rate of the first moment.");
  v.optional("beta2", t.beta2, at_least_below(0, 1), "Decay rate of the second moment.");
  v.optional("epsilon", t.epsilon, above(0), "Added to the root of the second moment.");
  v.optional("deterministic", t.deterministic, any(),
             "Bit-identical results on any number of ranks at the same global batch; slower.");
  v.optional("bucket_size", t.bucket_size, at_least(4, 0x1p62),
             "Gradients that travel together when ranks add theirs up: bytes, or a number with a unit as for "
             "`memory`. Four such buckets are under way at a time. Changes speed and memory only.");
  v.optional("shard_optimizer", t.shard_optimizer, any(),
             "Each rank keeps 1/n of the optimiser's moments and updates that part of the parameters "
             "(ZeRO-1). Same bits, less memory.");
  v.optional("outer_chunk", t.outer_chunk, at_least(0),
             "Positions of the outermost stage per time chunk; 0: automatic. Changes speed and memory only.");
  v.optional("inner_rows", t.inner_rows, at_least(0),
             "Rows per chunk of every inner stage; 0: automatic. Changes speed and memory only.");
  v.choice(
      "outer_tapes", t.outer_tapes, false, outer_tapes(),
      "What backward needs of the outermost stage's time chunks: `keep` it; `rebuild` it chunk by chunk "
      "from the carries saved between chunks; `two_level` saves a part of these carries only. Each takes "
      "less memory and more time than the one before and gives the same bits. `auto`: the first that fits.");
  v.optional("border_interval", t.border_interval, at_least(0),
             "Time chunks from one saved carry to the next under `two_level`; 0: the square root of their "
             "number. Changes speed and memory only.");
  v.optional("memory", t.memory, at_least(1, 0x1p62),
             "Memory that a rank may use, its GPU's where there is one: bytes, or a number with k, M, G, T "
             "(1000s) or Ki, Mi, Gi, Ti (1024s), such as 80G or 1.5GiB. null: what the machine has free. "
             "A deck that needs more is refused.");
  v.older("outer_recompute", "true stands for `outer_tapes: rebuild`, false for `outer_tapes: keep`");
  v.optional("eval_batch_size", t.eval_batch_size, at_least(0),
             "Windows per rank in evaluation; 0: batch_size.");
}

template <class Visitor>
void visit_io(Visitor& v, IoConfig& io) {
  v.required("name_model", io.name_model, any(), "Name of the run and of its folder.");
  v.required("output_dir", io.output_dir, any(), "Folder that the run's folder is made in.");
  v.optional("num_models_to_save", io.num_models_to_save, at_least(0, 1000),
             "Keep this many checkpoints with the lowest validation loss, besides the latest.");
  v.optional("validate_amount", io.validate_amount, at_least(1), "Validations spread evenly over the run.");
  v.optional("log_train_loss_amount", io.log_train_loss_amount, at_least(1),
             "Training records in metrics.jsonl, spread evenly over the run.");
  v.optional("checkpoint_every", io.checkpoint_every, at_least(0),
             "Optimiser steps between checkpoints; 0: only when validating, at the end and on a signal.");
  v.optional("dataset", io.dataset, any(), "Dataset file written by `strata pack`.");
  v.optional("description", io.description, any(), "Free text, copied into the run's config.yaml.");
  v.ignored("enabled_loss_log_for_gpus", "the losses of all ranks go into one metrics.jsonl");
  v.ignored("dataset_dir",
            "the data comes from the file io.dataset; make one from a folder with `strata pack`");
  v.ignored("dataset_id",
            "the data comes from the file io.dataset; of a folder of pg19, DIR, it is made by `strata pack "
            "--output "
            "pg19.h5 --train DIR/train --validation DIR/validation --test DIR/test`");
  v.ignored("dataset_args", "they prepare images and questions of clevr, which this program does not read");
}

template <class Visitor>
void visit_resume(Visitor& v) {
  char const* const beginning = "a run that starts from other weights starts at the beginning of its data";
  char const* const names = "`strata convert` knows the names of every version of the package";
  v.older("checkpoint_file", "the package's name of `train.init_from`, which is taken where both are given");
  v.ignored("next_epoch_index", beginning);
  v.ignored("next_batch_index", beginning);
  v.ignored("migrate_embeddings", names);
  v.ignored("rename_modules", names);
  v.ignored("resumed_from", "it describes where an earlier run came from");
}

}  // namespace strata::train
