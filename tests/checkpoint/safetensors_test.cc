#include "lathe/checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <span>

#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::message_of;
using checkpoint_test::raw;
using checkpoint_test::safetensors;
using checkpoint_test::TemporaryFolder;

class Safetensors : public testing::Test {
 protected:
  SafetensorsFile open(std::string_view bytes) const { return SafetensorsFile::open(folder_.file("m.safetensors", bytes)); }

  /// What opening a file of these bytes says behind the file's name.
  std::string refusal(std::string_view bytes) const {
    const std::filesystem::path path = folder_.file("m.safetensors", bytes);
    const std::string message = message_of<FormatError>([&] { SafetensorsFile::open(path); });
    return message.starts_with(path.string()) ? message.substr(path.string().size()) : message;
  }

  TemporaryFolder folder_;
};

TEST_F(Safetensors, ReadsTensorsByOffsetAndByName) {
  const std::string header =
      R"({"__metadata__":{"format":"pt","a":"b"},"z":{"dtype":"F32","shape":[2,2],"data_offsets":[4,20]},)"
      R"("scalar":{"shape":[],"data_offsets":[0,4],"dtype":"F32"},"none":{"dtype":"I64","shape":[0,3],"data_offsets":[4,4]}}   )";
  SafetensorsFile opened = open(safetensors(header, raw<float>({7, 1, 2, 3, 4})));
  const SafetensorsFile file = std::move(opened);  // what was opened may move
  ASSERT_EQ(file.tensors().size(), 3U);
  EXPECT_EQ(file.tensors()[0].name, "scalar");
  EXPECT_EQ(file.tensors()[1].name, "none");
  EXPECT_EQ(file.tensors()[2].name, "z");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"a", "b"}}));
  EXPECT_EQ(file.find("y"), nullptr);

  const TensorEntry* z = file.find("z");
  ASSERT_NE(z, nullptr);
  EXPECT_EQ(z->type, SafetensorsType::f32);
  EXPECT_EQ(z->shape, (std::vector<std::int64_t>{2, 2}));
  std::vector<float> values(4);
  file.read_f32(*z, values);
  EXPECT_EQ(values, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_TRUE(std::ranges::equal(file.bytes(*z), std::as_bytes(std::span(values))));

  const TensorEntry* scalar = file.find("scalar");
  ASSERT_NE(scalar, nullptr);
  EXPECT_EQ(scalar->elements(), 1);
  float seven = 0;
  file.read_f32(*scalar, std::span(&seven, 1));
  EXPECT_EQ(seven, 7);
  EXPECT_EQ(file.find("none")->elements(), 0);
  EXPECT_TRUE(file.bytes(*file.find("none")).empty());
}

TEST_F(Safetensors, AFileWithoutTensorsIsValid) { EXPECT_TRUE(open(safetensors("{}", "")).tensors().empty()); }

TEST_F(Safetensors, ConvertsWholeTensorsAcrossChunks) {
  constexpr std::size_t kCount = 100'003;  // several chunks and a rest
  std::vector<std::uint16_t> bf16(kCount), f16(kCount);
  std::vector<double> f64(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    f64[i] = static_cast<double>(i) / 8;
    bf16[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(i % 251)) >> 16U);
    f16[i] = static_cast<std::uint16_t>(i % 1024);  // subnormals: i * 2^-24
  }
  const std::string header =
      R"({"b":{"dtype":"BF16","shape":[100003],"data_offsets":[0,200006]},"h":{"dtype":"F16","shape":[100003],"data_offsets":[200006,400012]},)"
      R"("d":{"dtype":"F64","shape":[100003],"data_offsets":[400012,1200036]}})";
  const SafetensorsFile file = open(safetensors(header, raw(bf16) + raw(f16) + raw(f64)));
  std::vector<float> b(kCount), h(kCount), d(kCount);
  file.read_f32(*file.find("b"), b);
  file.read_f32(*file.find("h"), h);
  file.read_f32(*file.find("d"), d);
  for (std::size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(b[i], static_cast<float>(i % 251)) << i;
    ASSERT_EQ(h[i], static_cast<float>(i % 1024) * 0x1p-24F) << i;
    ASSERT_EQ(d[i], static_cast<float>(i) / 8) << i;
  }
}

TEST_F(Safetensors, RefusesToConvertWhatDoesNotFit) {
  const std::string header =
      R"({"big":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},)"
      R"("inf":{"dtype":"F64","shape":[1],"data_offsets":[16,24]}})";
  const SafetensorsFile file = open(safetensors(header, raw<double>({1e300, 0, std::numeric_limits<double>::infinity()})));
  float value = 0;
  const std::span one(&value, 1);
  EXPECT_EQ(message_of<FormatError>([&] { file.read_f32(*file.find("big"), one); }),
            file.path().string() + ", tensor big: holds 1e+300, which is beyond the range of fp32");
  EXPECT_EQ(message_of<FormatError>([&] { file.read_f32(*file.find("ids"), one); }),
            file.path().string() + ", tensor ids: is of type I64; Lathe reads weights of type F32, F16, BF16 and F64");
  file.read_f32(*file.find("inf"), one);
  EXPECT_EQ(value, std::numeric_limits<float>::infinity());
  std::vector<float> two(2);
  EXPECT_THROW(file.read_f32(*file.find("inf"), two), LogicError);
}

TEST_F(Safetensors, RefusesTruncatedFilesWithBothSizes) {
  const std::string whole = safetensors(R"({"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]}})", std::string(400, 'x'));
  const std::string size = std::to_string(whole.size());
  EXPECT_EQ(refusal(whole.substr(0, whole.size() - 1)), ": is truncated: by its header it has " + size + " bytes, in fact " +
                                                            std::to_string(whole.size() - 1) + "; get the file again");
  EXPECT_EQ(refusal(whole.substr(0, 30)), ": is truncated: its header alone needs 66 bytes, the file has 30; get the file again");
  EXPECT_EQ(refusal(whole.substr(0, 7)),
            ": has 7 bytes; a safetensors file begins with an 8-byte header length: get the file again");
  EXPECT_EQ(refusal(""), ": has 0 bytes; a safetensors file begins with an 8-byte header length: get the file again");
  EXPECT_EQ(refusal(whole + "yz"), ", offset " + size + ": 2 bytes follow the last tensor; the format allows none");
  EXPECT_EQ(refusal(whole), "(nothing thrown)");
}

TEST_F(Safetensors, EveryTruncationIsRefused) {
  const std::string whole =
      safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}})",
                  std::string(8, 'x'));
  for (std::size_t size = 0; size < whole.size(); ++size) EXPECT_NE(refusal(whole.substr(0, size)), "(nothing thrown)") << size;
}

TEST_F(Safetensors, RefusesAHugeHeaderLengthBeforeAllocating) {
  for (const std::uint64_t length : {std::uint64_t{1} << 60U, ~std::uint64_t{0}, std::uint64_t{100'000'001}}) {
    EXPECT_EQ(refusal(raw<std::uint64_t>({length}) + "{}"),
              ", offset 0: the header length is " + std::to_string(length) +
                  ", the format allows 100000000 at most: this is not a safetensors file");
  }
  EXPECT_EQ(refusal(raw<std::uint64_t>({100'000'000}) + "{}"),
            ": is truncated: its header alone needs 100000008 bytes, the file has 10; get the file again");
}

TEST_F(Safetensors, RefusesHeadersThatAreNotOne) {
  EXPECT_EQ(refusal(safetensors("", "")), ", header: does not start with '{': this is not a safetensors file");
  EXPECT_EQ(refusal(safetensors(" {}", "")), ", header: does not start with '{': this is not a safetensors file");
  EXPECT_EQ(refusal(safetensors("{\"a\":", "")),
            ", header, byte 5: is not valid JSON: while parsing value - unexpected end of input; "
            "expected '[', '{', or a literal");
  EXPECT_NE(refusal(safetensors(std::string_view("{}\0\0", 4), "")), "(nothing thrown)");
  EXPECT_EQ(refusal(safetensors("{}  \n\t", "")), "(nothing thrown)");
}

struct HeaderCase {
  const char* header;
  const char* message;
};

TEST_F(Safetensors, RefusesEveryFaultOfAHeader) {
  const std::string data(16, 'x');
  const std::vector<HeaderCase> cases = {
      // Duplicates.
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
       ", header: the key \"a\" occurs twice in one object"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
       ", header: the key \"dtype\" occurs twice in one object"},
      {R"({"__metadata__":{"x":"1","x":"2"}})", ", header: the key \"x\" occurs twice in one object"},
      // Offsets.
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}})",
       ", tensor b: begins at offset 4, but tensor a ends at 8: the data overlaps"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
       ", tensor b: begins at offset 8, but tensor a ends at 4: the data has a gap"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}})",
       ", tensor a: begins at offset 4, but the header ends at 0: the data has a gap"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
       ", tensor b: begins at offset 0, but tensor a ends at 16: the data overlaps"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"e":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}})",
       ", tensor e: begins at offset 8, but tensor a ends at 16: the data overlaps"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", ", tensor a: data_offsets [16, 0] are in reverse order"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}})",
       ", tensor a: found -16, expected data_offsets of two whole numbers from 0"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16.0]}})",
       ", tensor a: found 16.0, expected data_offsets of two whole numbers from 0"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,18446744073709551616]}})",
       ", tensor a: found 18446744073709551616, expected data_offsets of two whole numbers from 0"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9223372036854775808]}})",
       ", tensor a: found 9223372036854775808, expected data_offsets of two whole numbers from 0"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}})",
       ", tensor a: found a list of 1, expected data_offsets of two whole numbers from 0"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16,16]}})",
       ", tensor a: found one more number, expected data_offsets of two whole numbers from 0"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":null}})",
       ", tensor a: found null, expected data_offsets of two whole numbers from 0"},
      // Shapes.
      {R"({"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}})",
       ", tensor a: F32 of shape [5] takes 20 bytes, but data_offsets [0, 16] hold 16"},
      {R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,16]}})",
       ", tensor a: F32 of shape [0] takes 0 bytes, but data_offsets [0, 16] hold 16"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}})",
       ", tensor a: F32 of shape [4294967296, 4294967296] has no size in whole bytes below 2^60"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})",
       ", tensor a: F32 of shape [4611686018427387905] has no size in whole bytes below 2^60"},
      {R"({"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})",
       ", tensor a: F32 of shape [0, 4294967296, 4294967296] has no size in whole bytes below 2^60"},
      {R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})",
       ", tensor a: found -4, expected dimensions, at most 64, each a whole number from 0"},
      {R"({"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})",
       ", tensor a: found 4.0, expected dimensions, at most 64, each a whole number from 0"},
      {R"({"a":{"dtype":"F32","shape":["4"],"data_offsets":[0,16]}})",
       ", tensor a: found \"4\", expected dimensions, at most 64, each a whole number from 0"},
      {R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,16]}})", ", tensor a: found 4, expected the list of the dimensions"},
      {R"({"a":{"dtype":"F32","shape":[[4]],"data_offsets":[0,16]}})",
       ", tensor a: found a list, expected dimensions, at most 64, each a whole number from 0"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})",
       ", tensor a: F4 of shape [3] has no size in whole bytes below 2^60"},
      // Types and structure.
      {R"({"a":{"dtype":"F32","shape":[4]}})", ", tensor a: has no data_offsets"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,16]}})", ", tensor a: has no shape"},
      {R"({"a":{"shape":[4],"data_offsets":[0,16]}})", ", tensor a: has no dtype"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1}})",
       ", tensor a: found the key \"x\", expected dtype, shape and data_offsets alone"},
      {R"({"a":[]})", ", tensor a: found a list, expected an object"},
      {R"({"a":1})", ", tensor a: found 1, expected an object"},
      {R"({"__metadata__":{"x":1}})", ", header, __metadata__: found 1, expected a string"},
      {R"({"__metadata__":{"x":{}}})", ", header, __metadata__: found an object, expected a string"},
      {R"({"__metadata__":[]})", ", header, __metadata__: found a list, expected an object"},
      {R"({})", ", offset 10: 16 bytes follow the last tensor; the format allows none"},
  };
  for (const HeaderCase& test : cases) {
    EXPECT_EQ(refusal(safetensors(test.header, data)), test.message) << test.header;
  }
  const std::string unknown = refusal(safetensors(R"({"a":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}})", data));
  EXPECT_TRUE(unknown.starts_with(", tensor a: found \"F128\", expected a dtype of the format, such as F32")) << unknown;
  const std::string number = refusal(safetensors(R"({"a":{"dtype":32,"shape":[4],"data_offsets":[0,16]}})", data));
  EXPECT_TRUE(number.starts_with(", tensor a: found 32, expected a dtype of the format, such as F32")) << number;
}

TEST_F(Safetensors, BoundsNamesAndDimensions) {
  const std::string long_name = R"({")" + std::string(1'001, 'n') + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
  EXPECT_EQ(refusal(safetensors(long_name, "")),
            ", header: found a name of 1001 bytes, expected names of tensors, of 1000 bytes at most");
  const auto ranked = [](int rank) {
    std::string shape;
    for (int i = 0; i < rank; ++i) shape += i == 0 ? "1" : ",1";
    return R"({"a":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,1]}})";
  };
  EXPECT_EQ(refusal(safetensors(ranked(64), "x")), "(nothing thrown)");
  EXPECT_EQ(refusal(safetensors(ranked(65), "x")),
            ", tensor a: found one more number, expected dimensions, at most 64, each a whole number from 0");
}

TEST_F(Safetensors, KnowsEveryTypeOfTheFormat) {
  for (const auto& [name, bits] : std::vector<std::pair<const char*, int>>{
           {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
           {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
           {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
           {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}) {
    const std::string header =
        R"({"a":{"dtype":")" + std::string(name) + R"(","shape":[4],"data_offsets":[0,)" + std::to_string(bits / 2) + "]}}";
    const SafetensorsFile file = open(safetensors(header, std::string(static_cast<std::size_t>(bits / 2), 'x')));
    EXPECT_EQ(name_of(file.tensors()[0].type), name);
  }
}

TEST_F(Safetensors, AFileCutWhileOpenIsAnErrorAndNotASignal) {
  constexpr std::size_t kCount = 1 << 18;
  const std::string header =
      R"({"a":{"dtype":"F32","shape":[262144],"data_offsets":[0,1048576]},"h":{"dtype":"F16","shape":[262144],"data_offsets":[1048576,1572864]}})";
  const SafetensorsFile file = open(safetensors(header, std::string(kCount * 6, '\0')));
  const std::uintmax_t size = std::filesystem::file_size(file.path());
  std::filesystem::resize_file(file.path(), 8192);
  std::vector<float> values(kCount);
  EXPECT_EQ(message_of<FileError>([&] { file.read_f32(*file.find("a"), values); }),
            file.path().string() + ": ended at byte 8192 while being read; it had " + std::to_string(size) +
                " bytes when it was opened");
  EXPECT_THROW(file.read_f32(*file.find("h"), values), FileError);
  EXPECT_EQ(
      message_of<FileError>([&] { file.bytes(*file.find("a")); }),
      file.path().string() + ": was cut to 8192 bytes while in use; it had " + std::to_string(size) + " when it was opened");
}

TEST_F(Safetensors, RefusesWhatIsNoFile) {
  const std::filesystem::path missing = folder_.path() / "missing.safetensors";
  EXPECT_EQ(message_of<FileError>([&] { SafetensorsFile::open(missing); }),
            missing.string() + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of<FileError>([&] { SafetensorsFile::open(folder_.path()); }),
            folder_.path().string() + ": is a folder, not a file");
  const std::filesystem::path pipe = folder_.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(message_of<FileError>([&] { SafetensorsFile::open(pipe); }), pipe.string() + ": is not a file");
}

}  // namespace
}  // namespace lathe
