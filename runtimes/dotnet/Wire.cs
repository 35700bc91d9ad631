// Frames in, frames out, as docs/design/wire.md has them.

using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Dunlin
{
    enum Kind : byte
    {
        Load = 2, Init = 3, Invoke = 4, Cancel = 6, PreStop = 7, Grant = 8,
        Ready = 16, Head = 17, End = 18, Error = 19, Chunk = 5
    }

    /// <summary>One request in flight.</summary>
    sealed class Exchange
    {
        public readonly Kind Kind;
        public readonly uint Stream;
        public readonly byte[] Token;
        /// <summary>How much of an answer in parts the host takes now.</summary>
        public long Credit = Wire.Window;

        public Exchange(Kind kind, uint stream, byte[] token)
        {
            Kind = kind;
            Stream = stream;
            Token = token;
        }
    }

    sealed class Request
    {
        public Exchange Exchange;
        public byte[] Head;
        public byte[] Body;
    }

    /// <summary>The channel. One thread reads it and answers; only for what ends the process another thread answers.</summary>
    sealed class Wire
    {
        /// <summary>Bytes of Chunk frames, headers included, that may be on their way.</summary>
        public const int Window = 256 << 10;
        public const int ChunkMax = 64 << 10;
        const int HeaderBytes = 32, TokenBytes = 16;
        /// <summary>Bodies up to this size are copied beside their header and written at once.</summary>
        const int Small = 16 << 10;
        const int Descriptor = 3, SetFlags = 2, CloseOnExec = 1, Readable = 1;
        static readonly byte[] Nothing = new byte[0];

        readonly FileStream channel;
        readonly object writing = new object();
        Exchange current;

        public Wire()
        {
            // A process that user code starts must not hold the channel open.
            fcntl(Descriptor, SetFlags, CloseOnExec);
            channel = new FileStream(new SafeFileHandle((IntPtr)Descriptor, true), FileAccess.ReadWrite, 1, false);
        }

        [DllImport("libc")]
        static extern int fcntl(int descriptor, int command, int argument);

        [StructLayout(LayoutKind.Sequential)]
        struct Watched
        {
            public int Descriptor;
            public short Events;
            public short Found;
        }

        [DllImport("libc")]
        static extern int poll(ref Watched watched, IntPtr count, int milliseconds);

        /// <summary>Whether the host has said something that was not read yet.</summary>
        public bool IsAsked()
        {
            Watched watched = new Watched { Descriptor = Descriptor, Events = Readable };
            return poll(ref watched, (IntPtr)1, 0) != 0;
        }

        public void Ready(string runtime)
        {
            lock (writing)
            {
                Send(Kind.Ready, null, Encoding.UTF8.GetBytes("{\"runtime\":" + Json.Quoted(runtime) + "}"), Nothing, 0);
            }
        }

        /// <summary>Waits for a request. Null when the host has let go.</summary>
        public Request Next()
        {
            for (;;)
            {
                Request request = Read();
                if (request == null)
                {
                    return null;
                }
                switch (request.Exchange.Kind)
                {
                    case Kind.Load:
                    case Kind.Init:
                    case Kind.Invoke:
                    case Kind.PreStop:
                        lock (writing)
                        {
                            current = request.Exchange;
                        }
                        return request;
                    case Kind.Grant:
                    case Kind.Chunk:
                    case Kind.Cancel:
                        // For a request that has been answered.
                        continue;
                    default:
                        return null;
                }
            }
        }

        /// <summary>Answers the request being served, unless it has been answered.</summary>
        public void Answer(Kind kind, string head, byte[] body, int length)
        {
            lock (writing)
            {
                Exchange exchange = current;
                current = null;
                if (exchange != null)
                {
                    Send(kind, exchange, Encoding.UTF8.GetBytes(head), body, length);
                }
            }
        }

        public void Answer(Kind kind, string head, byte[] body)
        {
            Answer(kind, head, body, body.Length);
        }

        /// <summary>What the request being served is; null between requests.</summary>
        public Exchange Current
        {
            get
            {
                lock (writing)
                {
                    return current;
                }
            }
        }

        /// <summary>Sends an answer in parts, each as soon as it is there and the host takes it.</summary>
        public void SendParts(Stream parts)
        {
            Exchange exchange = Current;
            SendPart(Kind.Head, exchange, Encoding.UTF8.GetBytes("{}"), 0, Nothing);
            byte[] part = new byte[ChunkMax];
            int count;
            while ((count = parts.Read(part, 0, part.Length)) > 0)
            {
                exchange.Credit -= HeaderBytes + count;
                while (exchange.Credit < 0)
                {
                    Await(exchange);
                }
                SendPart(Kind.Chunk, exchange, Nothing, count, part);
            }
        }

        void SendPart(Kind kind, Exchange exchange, byte[] head, int length, byte[] body)
        {
            lock (writing)
            {
                if (current == exchange)
                {
                    Send(kind, exchange, head, body, length);
                }
            }
        }

        /// <summary>Waits until the host takes more.</summary>
        void Await(Exchange exchange)
        {
            Request news = Read();
            if (news == null)
            {
                Environment.Exit(0);
            }
            if (news.Exchange.Kind == Kind.Grant && news.Exchange.Stream == exchange.Stream)
            {
                exchange.Credit += BitConverter.ToUInt32(news.Body, 0);
            }
        }

        Request Read()
        {
            byte[] header = ReadExactly(HeaderBytes);
            if (header == null)
            {
                return null;
            }
            byte[] token = new byte[TokenBytes];
            Buffer.BlockCopy(header, HeaderBytes - TokenBytes, token, 0, TokenBytes);
            Exchange exchange = new Exchange((Kind)header[0], BitConverter.ToUInt32(header, 4), token);
            byte[] head = ReadExactly(BitConverter.ToInt32(header, 8));
            byte[] body = head == null ? null : ReadExactly(BitConverter.ToInt32(header, 12));
            return body == null ? null : new Request { Exchange = exchange, Head = head, Body = body };
        }

        byte[] ReadExactly(int length)
        {
            byte[] bytes = length == 0 ? Nothing : new byte[length];
            for (int at = 0; at < length;)
            {
                int count = channel.Read(bytes, at, length - at);
                if (count == 0)
                {
                    return null;
                }
                at += count;
            }
            return bytes;
        }

        void Send(Kind kind, Exchange exchange, byte[] head, byte[] body, int length)
        {
            bool together = length <= Small;
            byte[] first = new byte[HeaderBytes + head.Length + (together ? length : 0)];
            first[0] = (byte)kind;
            Put(first, 4, exchange == null ? 0 : (int)exchange.Stream);
            Put(first, 8, head.Length);
            Put(first, 12, length);
            if (exchange != null)
            {
                Buffer.BlockCopy(exchange.Token, 0, first, HeaderBytes - TokenBytes, TokenBytes);
            }
            Buffer.BlockCopy(head, 0, first, HeaderBytes, head.Length);
            if (together)
            {
                Buffer.BlockCopy(body, 0, first, HeaderBytes + head.Length, length);
            }
            channel.Write(first, 0, first.Length);
            if (!together)
            {
                channel.Write(body, 0, length);
            }
            channel.Flush();
        }

        static void Put(byte[] bytes, int at, int value)
        {
            for (int i = 0; i < 4; i++)
            {
                bytes[at + i] = (byte)(value >> (8 * i));
            }
        }
    }
}
