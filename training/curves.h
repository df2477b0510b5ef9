#pragma once
// The course of a training as a picture.
#include <cstdint>
#include <string>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// A logged step.
struct StepPoint {
  std::int64_t step = 0;
  double loss = 0.0;
  double learning_rate = 0.0;
};

/// An evaluation of the dev split. Pre-training has neither accuracy nor F1: NaN.
struct EvaluationPoint {
  std::int64_t step = 0;
  double loss = 0.0;
  double accuracy = 0.0;
  double f1 = 0.0;
  bool best = false;  ///< better than all before
};

/// Points by ascending step. Values that aren't finite are not drawn.
struct Curves {
  std::string f1_name = "macro F1";  ///< what `f1` is of
  std::int64_t steps_per_epoch = 0;  ///< marks the ends of epochs; 0 for no marks
  std::vector<StepPoint> steps;
  std::vector<EvaluationPoint> evaluations;
};

/// An <svg> element that is a file of its own as well as a part of an HTML page: the losses, accuracy and F1 of the dev split (where there
/// is an evaluation) and the learning rate, over steps. Without scripts, in light and dark as the reader prefers. Of more
/// points than the picture is wide, the least and the largest of neighbours are drawn; from ten logged steps on, the training loss
/// is a faint line below its running mean. The same points give the same text.
std::string curves_svg(const Curves& curves);

}  // namespace lathe
