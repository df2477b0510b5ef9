#pragma once
// The data of tiny_model.h and tiny_text.h as samples to train on.
#include <filesystem>
#include <vector>

#include "lathe/text/documents.h"
#include "lathe/text/wordpiece.h"
#include "lathe/training/classifier.h"
#include "lathe/training/dataset.h"
#include "lathe/training/finetune.h"

namespace lathe {

inline LabelledSamples labelled_samples(const Classifier& classifier, const std::filesystem::path& file) {
  const DataSet data = read_records(file);
  return {.samples = tokenize(classifier, data.records, TextKind::single, 32, 1).samples,
          .labels = classifier.labels().ids_of(data.records)};
}

/// Of the folder's text.txt, by the tokenizer in its folder "model".
inline TokenizedSamples text_sequences(const std::filesystem::path& folder) {
  return make_sequences(WordPieceTokenizer::load(folder / "model"), read_documents(std::vector{folder / "text.txt"}),
                        {.max_length = 24, .threads = 1})
      .samples;
}

}  // namespace lathe
