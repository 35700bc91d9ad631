// How a handler's end is told to its caller and to the log (contract section 5.1).

using System;
using System.Collections.Generic;
using System.IO;
using System.Reflection;
using System.Text;

namespace Dunlin
{
    /// <summary>A failure this bootstrap words itself: it has no stack of the user's.</summary>
    sealed class Failure : Exception
    {
        public readonly string Type;

        public Failure(string type, string message) : base(message)
        {
            Type = type;
        }
    }

    /// <summary>An error as callers and logs get it. Making one never fails, whatever the user threw.</summary>
    sealed class Report
    {
        const int MessageCharsMax = 64 << 10, FramesMax = 100, CausesMax = 16;

        readonly string message;
        readonly string type;
        readonly string cause;
        readonly List<string> stack = new List<string>();
        readonly StringBuilder text = new StringBuilder();

        public Report(Exception thrown)
        {
            Failure own = thrown as Failure;
            if (own != null)
            {
                message = own.Message;
                type = own.Type;
                text.Append(type).Append(": ").Append(message);
                return;
            }
            Exception root = Unwrapped(thrown);
            message = MessageOf(root);
            type = root.GetType().FullName;
            stack = UsersFrames(root);
            Describe(root, stack);
            for (int depth = 0; depth < CausesMax && InnerOf(root) != null; depth++)
            {
                root = InnerOf(root);
                text.Append("\n ---> ");
                Describe(root, UsersFrames(root));
                cause = MessageOf(root);
            }
        }

        /// <summary>What was thrown, without what reflection and tasks put around it.</summary>
        static Exception Unwrapped(Exception thrown)
        {
            for (int depth = 0; depth < CausesMax; depth++)
            {
                AggregateException several = thrown as AggregateException;
                bool wraps = thrown is TargetInvocationException || thrown is TypeInitializationException
                    || several != null && several.InnerExceptions.Count == 1;
                if (!wraps || thrown.InnerException == null)
                {
                    break;
                }
                thrown = thrown.InnerException;
            }
            return thrown;
        }

        /// <summary>The body of contract section 5.1, as JSON.</summary>
        public byte[] Body()
        {
            StringBuilder json = new StringBuilder("{\"errorMessage\":").Append(Json.Quoted(message));
            json.Append(",\"errorType\":").Append(Json.Quoted(type));
            if (cause != null)
            {
                json.Append(",\"errorCause\":").Append(Json.Quoted(cause));
            }
            json.Append(",\"stackTrace\":[");
            for (int i = 0; i < stack.Count; i++)
            {
                json.Append(i == 0 ? "" : ",").Append(Json.Quoted(stack[i]));
            }
            return Encoding.UTF8.GetBytes(json.Append("]}").ToString());
        }

        /// <summary>Writes it into the log, past whatever the user has put in the place of stderr.</summary>
        public void Print()
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text.Append('\n').ToString());
            using (Stream errors = Console.OpenStandardError())
            {
                errors.Write(bytes, 0, bytes.Length);
            }
        }

        void Describe(Exception thrown, List<string> frames)
        {
            text.Append(thrown.GetType().FullName).Append(": ").Append(MessageOf(thrown));
            foreach (string frame in frames)
            {
                text.Append("\n   ").Append(frame);
            }
        }

        static string MessageOf(Exception thrown)
        {
            try
            {
                string message = thrown.Message ?? "";
                return message.Length > MessageCharsMax ? message.Substring(0, MessageCharsMax) + "…" : message;
            }
            catch (Exception)
            {
                return "(this exception has no text: its Message failed)";
            }
        }

        static Exception InnerOf(Exception thrown)
        {
            try
            {
                return thrown.InnerException;
            }
            catch (Exception)
            {
                return null;
            }
        }

        /// <summary>The frames above our own, as .NET writes them.</summary>
        static List<string> UsersFrames(Exception thrown)
        {
            List<string> frames = new List<string>();
            string trace;
            try
            {
                trace = thrown.StackTrace ?? "";
            }
            catch (Exception)
            {
                return frames;
            }
            foreach (string line in trace.Split('\n'))
            {
                string frame = line.Trim();
                if (frame.StartsWith("at Dunlin.", StringComparison.Ordinal))
                {
                    break;
                }
                if (frame.Length > 0 && frames.Count < FramesMax)
                {
                    frames.Add(frame);
                }
            }
            while (frames.Count > 0 && IsReflection(frames[frames.Count - 1]))
            {
                frames.RemoveAt(frames.Count - 1);
            }
            return frames;
        }

        /// <summary>Whether a frame is how we came to call the user: newer versions of .NET do it by other classes.</summary>
        static bool IsReflection(string frame)
        {
            return frame.StartsWith("at System.Reflection.", StringComparison.Ordinal)
                || frame.StartsWith("at System.RuntimeMethodHandle.", StringComparison.Ordinal)
                || frame.StartsWith("at InvokeStub_", StringComparison.Ordinal);
        }
    }
}
