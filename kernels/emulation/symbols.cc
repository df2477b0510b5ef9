#include "lathe/kernels/emulation/symbols.h"

#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <gelf.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

namespace lathe::emulation {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

/// The debug information of this process, read as it is asked for.
class DebugInformation {
 public:
  DebugInformation() : session_(dwfl_begin(&callbacks())) { report(); }
  ~DebugInformation() { dwfl_end(session_); }
  DebugInformation(const DebugInformation&) = delete;
  DebugInformation& operator=(const DebugInformation&) = delete;
  DebugInformation(DebugInformation&&) = delete;
  DebugInformation& operator=(DebugInformation&&) = delete;

  Dwfl_Module* module_at(std::uintptr_t address) {
    Dwfl_Module* found = dwfl_addrmodule(session_, address);
    if (found == nullptr) {  // a library that was loaded since
      report();
      found = dwfl_addrmodule(session_, address);
    }
    return found;
  }

  /// All addresses whose lower half is `code` and that a module has.
  std::vector<std::uintptr_t> candidates(std::uint32_t code) {
    struct Search {
      std::uint32_t code;
      std::vector<std::uintptr_t> found;
    } search{code, {}};
    dwfl_getmodules(
        session_,
        [](Dwfl_Module*, void**, const char*, Dwarf_Addr start, void* argument) {
          auto& wanted = *static_cast<Search*>(argument);
          constexpr std::uint64_t kUpper = ~std::uint64_t{0xFFFFFFFF};
          wanted.found.push_back((start & kUpper) | wanted.code);
          wanted.found.push_back(((start & kUpper) + 0x100000000U) | wanted.code);
          return static_cast<int>(DWARF_CB_OK);
        },
        &search, 0);
    std::erase_if(search.found, [&](std::uintptr_t address) { return dwfl_addrmodule(session_, address) == nullptr; });
    return search.found;
  }

 private:
  static const Dwfl_Callbacks& callbacks() {
    static const Dwfl_Callbacks value = {.find_elf = dwfl_linux_proc_find_elf,
                                         .find_debuginfo = dwfl_standard_find_debuginfo,
                                         .section_address = dwfl_offline_section_address,
                                         .debuginfo_path = nullptr};
    return value;
  }
  void report() {
    dwfl_report_begin(session_);
    dwfl_linux_proc_report(session_, getpid());
    dwfl_report_end(session_, nullptr, nullptr);
  }

  Dwfl* session_;
};

DebugInformation& debug_information() {
  static DebugInformation value;
  return value;
}

bool is_kernel_file(std::string_view file) { return file.ends_with(".cu"); }
bool is_device_header(std::string_view file) { return file.ends_with(".cuh"); }

std::string at_line(std::string_view file, int line) { return source_name(file) + ":" + std::to_string(line); }

/// The innermost line of a kernel file, following what was inlined into what. Where none is of a kernel file, the kernel itself may be in a
/// device header: the outermost line of one, else the innermost line at all.
std::string line_at(std::uintptr_t address) {
  Dwfl_Module* module = debug_information().module_at(address);
  if (module == nullptr) return "";
  int line = 0;
  Dwfl_Line* entry = dwfl_module_getsrc(module, address);
  const char* innermost = entry == nullptr ? nullptr : dwfl_lineinfo(entry, nullptr, &line, nullptr, nullptr, nullptr);
  if (innermost == nullptr) return "";
  if (is_kernel_file(innermost)) return at_line(innermost, line);

  Dwarf_Addr bias = 0;
  Dwarf_Die* unit = dwfl_module_addrdie(module, address, &bias);
  // The innermost scope, and from it outwards what it was inlined into.
  Dwarf_Die* innermost_scopes = nullptr;
  const int found = unit == nullptr ? 0 : dwarf_getscopes(unit, address - bias, &innermost_scopes);
  const std::unique_ptr<Dwarf_Die, Free> innermost_owner(innermost_scopes);
  Dwarf_Die* scopes = nullptr;
  const int count = found <= 0 ? 0 : dwarf_getscopes_die(innermost_scopes, &scopes);
  const std::unique_ptr<Dwarf_Die, Free> owner(scopes);
  Dwarf_Files* files = nullptr;
  if (count <= 0 || dwarf_getsrcfiles(unit, &files, nullptr) != 0) return at_line(innermost, line);
  std::string outermost = at_line(innermost, line);
  for (int i = 0; i < count; ++i) {
    Dwarf_Die* scope = scopes + i;
    if (dwarf_tag(scope) != DW_TAG_inlined_subroutine) continue;
    Dwarf_Attribute attribute;
    Dwarf_Word call_file = 0;
    Dwarf_Word call_line = 0;
    if (dwarf_formudata(dwarf_attr(scope, DW_AT_call_file, &attribute), &call_file) != 0) continue;
    if (dwarf_formudata(dwarf_attr(scope, DW_AT_call_line, &attribute), &call_line) != 0) continue;
    const char* caller = dwarf_filesrc(files, call_file, nullptr, nullptr);
    if (caller == nullptr) continue;
    if (is_kernel_file(caller)) return at_line(caller, static_cast<int>(call_line));
    if (is_device_header(caller)) outermost = at_line(caller, static_cast<int>(call_line));
  }
  return outermost;
}

/// "ns::f<a::b>(c) " with return type: f<a::b>.
std::string short_name(std::string name) {
  constexpr std::string_view kAnonymous = "(anonymous namespace)::";
  for (std::size_t at = name.find(kAnonymous); at != std::string::npos; at = name.find(kAnonymous))
    name.erase(at, kAnonymous.size());
  // The parameters: from the last opening parenthesis at depth 0 on.
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '<') ++depth;
    if (c == '>') --depth;
    if (c == '(' && depth == 0) {
      name.resize(i);
      break;
    }
    if (depth == 0 && (c == ' ' || (c == ':' && i + 1 < name.size() && name[i + 1] == ':'))) begin = i + (c == ' ' ? 1 : 2);
  }
  name.erase(0, std::min(begin, name.size()));
  for (const std::string_view own : {"lathe::emulated::", "lathe::"}) {
    for (std::size_t at = name.find(own); at != std::string::npos; at = name.find(own)) name.erase(at, own.size());
  }
  return name;
}

std::string demangled(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, Free> text(abi::__cxa_demangle(symbol, nullptr, nullptr, &status));
  return status == 0 ? text.get() : symbol;
}

/// The demangled symbol; empty where there is none.
std::string symbol_at(const void* function) {
  const auto address = reinterpret_cast<std::uintptr_t>(function);
  Dwfl_Module* module = debug_information().module_at(address);
  const char* symbol = module == nullptr ? nullptr : dwfl_module_addrname(module, address);
  return symbol == nullptr ? "" : demangled(symbol);
}

/// The module that has an address: its base, and the calling thread's copy of its thread-local variables.
struct Module {
  std::uintptr_t address = 0;
  std::uintptr_t base = 0;
  bool found = false;
  Range thread_local_memory;
};
Module module_of(const void* function) {
  Module module;
  module.address = reinterpret_cast<std::uintptr_t>(function);
  dl_iterate_phdr(
      [](dl_phdr_info* information, std::size_t, void* argument) {
        auto& wanted = *static_cast<Module*>(argument);
        const std::span<const ElfW(Phdr)> headers(information->dlpi_phdr, information->dlpi_phnum);
        const bool has = std::ranges::any_of(headers, [&](const ElfW(Phdr) & header) {
          return header.p_type == PT_LOAD && wanted.address - (information->dlpi_addr + header.p_vaddr) < header.p_memsz;
        });
        if (!has) return 0;
        wanted.found = true;
        wanted.base = information->dlpi_addr;
        for (const auto& header : headers) {
          if (header.p_type == PT_TLS && information->dlpi_tls_data != nullptr) {
            wanted.thread_local_memory = {reinterpret_cast<std::uintptr_t>(information->dlpi_tls_data), header.p_memsz};
          }
        }
        return 1;
      },
      &module);
  return module;
}

/// The thread-local variables of a module, by offset.
std::map<std::size_t, ThreadLocalVariable> variables_of(const void* function, std::size_t bytes) {
  std::map<std::size_t, ThreadLocalVariable> variables;
  Dwfl_Module* module = debug_information().module_at(reinterpret_cast<std::uintptr_t>(function));
  Dwarf_Addr bias = 0;
  Elf* elf = module == nullptr ? nullptr : dwfl_module_getelf(module, &bias);
  for (Elf_Scn* section = nullptr; elf != nullptr && (section = elf_nextscn(elf, section)) != nullptr;) {
    GElf_Shdr header;
    if (gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_SYMTAB) continue;
    Elf_Data* data = elf_getdata(section, nullptr);
    for (std::size_t i = 0; i < header.sh_size / header.sh_entsize; ++i) {
      GElf_Sym symbol;
      if (gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr || GELF_ST_TYPE(symbol.st_info) != STT_TLS) continue;
      if (symbol.st_shndx == SHN_UNDEF || symbol.st_size == 0) continue;
      const std::string full = demangled(elf_strptr(elf, header.sh_link, symbol.st_name));
      const std::size_t name = full.rfind("::");
      variables[symbol.st_value] = {.name = "'" + (name == std::string::npos ? full : full.substr(name + 2)) + "'",
                                    .owner = name == std::string::npos ? "" : full.substr(0, name),
                                    .offset = symbol.st_value,
                                    .bytes = symbol.st_size,
                                    .guard = full.starts_with("guard variable for ")};
    }
  }
  if (variables.empty())
    variables[0] = {.name = "static shared memory", .owner = "", .offset = 0, .bytes = bytes, .guard = false};
  return variables;
}

const std::map<std::size_t, ThreadLocalVariable>& variables_at(const void* function) {
  static std::map<std::uintptr_t, std::map<std::size_t, ThreadLocalVariable>> known;
  const Module module = module_of(function);
  const auto [entry, is_new] = known.try_emplace(module.base);
  auto& variables = entry->second;
  if (is_new) on_deep_stack([&] { variables = variables_of(function, module.thread_local_memory.bytes); });
  return variables;
}

/// A kernel as the owner of its variables: its symbol without "void", which instances of templates have.
std::string kernel_symbol(const void* function) {
  std::string symbol;
  on_deep_stack([&] { symbol = symbol_at(function); });
  constexpr std::string_view kVoid = "void ";
  return symbol.starts_with(kVoid) ? symbol.substr(kVoid.size()) : symbol;
}

/// Kernels that were launched, by symbol.
std::set<std::string>& kernels_seen() {
  static std::set<std::string> value;
  return value;
}

struct Constants {
  std::vector<Range> ranges;
  Constants() {
    dl_iterate_phdr(
        [](dl_phdr_info* information, std::size_t, void* argument) {
          for (const auto& header : std::span(information->dlpi_phdr, information->dlpi_phnum)) {
            if ((header.p_type == PT_LOAD && (header.p_flags & PF_W) == 0) || header.p_type == PT_GNU_RELRO) {
              static_cast<Constants*>(argument)->ranges.push_back({information->dlpi_addr + header.p_vaddr, header.p_memsz});
            }
          }
          return 0;
        },
        this);
  }
  bool contain(std::uintptr_t address) const {
    return std::ranges::any_of(ranges, [&](const Range& range) { return range.contains(address); });
  }
};

}  // namespace

std::string source_name(std::string_view file) {
  for (const std::string_view room : {"tests/", "benchmarks/", "examples/", "kernels/", "runtime/"}) {
    const std::size_t at = file.rfind(room);
    if (at != std::string_view::npos && (at == 0 || file[at - 1] == '/')) return std::string(file.substr(at));
  }
  const std::size_t last = file.rfind('/');
  const std::size_t before = last == std::string_view::npos || last == 0 ? std::string_view::npos : file.rfind('/', last - 1);
  return std::string(before == std::string_view::npos ? file : file.substr(before + 1));
}

std::string function_name(const void* function) {
  static std::unordered_map<const void*, std::string> known;
  const auto found = known.find(function);
  if (found != known.end()) return found->second;
  std::string& name = known[function];
  on_deep_stack([&] {
    const std::string symbol = symbol_at(function);
    name = symbol.empty() ? "a kernel without a name" : short_name(symbol);
  });
  return name;
}

std::string source_line(std::uint32_t code) {
  static std::unordered_map<std::uint32_t, std::string> known;
  const auto found = known.find(code);
  if (found != known.end()) return found->second;
  std::string& line = known[code];
  on_deep_stack([&] {
    // A return address is behind the call.
    for (const std::uintptr_t address : debug_information().candidates(code)) {
      if (line.empty()) line = line_at(address - 1);
    }
  });
  if (line.empty()) line = "an unknown line";
  return line;
}

Range thread_local_range(const void* function) { return module_of(function).thread_local_memory; }

std::size_t static_shared_bytes(const void* function) {
  static std::unordered_map<const void*, std::size_t> known;
  const auto [found, is_new] = known.try_emplace(function, 0);
  if (!is_new) return found->second;
  const std::string kernel = kernel_symbol(function);
  kernels_seen().insert(kernel);
  for (const auto& [offset, variable] : variables_at(function)) {
    if (variable.owner == kernel) found->second += variable.bytes;
  }
  return found->second;
}

const ThreadLocalVariable* thread_local_variable(const void* function, std::size_t offset) {
  using Variables = std::map<std::size_t, ThreadLocalVariable>;
  static std::unordered_map<const void*, Variables> known;
  thread_local const void* last_function = nullptr;
  thread_local const Variables* last = nullptr;
  if (function != last_function) {
    const auto [entry, is_new] = known.try_emplace(function);
    Variables& own = entry->second;
    if (is_new) {
      // What another kernel declares is not this one's.
      const std::string kernel = kernel_symbol(function);
      own = variables_at(function);
      std::erase_if(own,
                    [&](const auto& each) { return each.second.owner != kernel && kernels_seen().contains(each.second.owner); });
    }
    last = &own;
    last_function = function;
  }
  const auto after = last->upper_bound(offset);
  if (after == last->begin()) return nullptr;
  const ThreadLocalVariable& variable = std::prev(after)->second;
  return offset < variable.offset + variable.bytes ? &variable : nullptr;
}

bool is_constant(std::uintptr_t address) {
  static Constants constants;
  if (constants.contain(address)) return true;
  constants = Constants();  // a library may have been loaded since
  return constants.contain(address);
}

}  // namespace lathe::emulation
