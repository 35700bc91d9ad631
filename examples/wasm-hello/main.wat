;; A WASI command, written by hand: answers "hello", and behind it what it is given.
;;
;; wat2wasm main.wat -o main.wasm      (or: wasm-tools parse main.wat -o main.wasm)
(module $hello
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  ;; A vector of one buffer lies at 0, the number of bytes moved at 8.
  (data (i32.const 16) "hello ")

  (func $write (param $from i32) (param $length i32)
    (loop $again
      (i32.store (i32.const 0) (local.get $from))
      (i32.store (i32.const 4) (local.get $length))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
      (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
      (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 8))))
      (br_if $again (local.get $length))))

  (func $read (result i32)
    (i32.store (i32.const 0) (i32.const 65536))
    (i32.store (i32.const 4) (i32.const 65536))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
    (i32.load (i32.const 8)))

  (func (export "_start")
    (local $read i32)
    (local.set $read (call $read))
    ;; The space only when something comes behind it.
    (call $write (i32.const 16) (select (i32.const 6) (i32.const 5) (local.get $read)))
    (block $end
      (loop $again
        (br_if $end (i32.eqz (local.get $read)))
        (call $write (i32.const 65536) (local.get $read))
        (local.set $read (call $read))
        (br $again)))))
