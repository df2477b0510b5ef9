#pragma once
// Stands before everything else in a kernel file that is compiled for the emulation: also the calls that the compiler itself makes to
// copy and to clear memory are watched.
extern "C" {
void* memcpy(void* to, const void* from, __SIZE_TYPE__ bytes) noexcept __asm__("lathe_emulated_memcpy");
void* memmove(void* to, const void* from, __SIZE_TYPE__ bytes) noexcept __asm__("lathe_emulated_memcpy");
void* memset(void* to, int value, __SIZE_TYPE__ bytes) noexcept __asm__("lathe_emulated_memset");
}
