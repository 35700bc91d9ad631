// `context.Logger`: lines that carry time, level and request, as the contract's section 6.4 has them for Java.

using System;
using System.Globalization;
using System.IO;
using System.Text;

namespace Dunlin
{
    /// <summary>Behind <c>ILogger</c> of Microsoft.Extensions.Logging, whose levels count from Trace to None.</summary>
    sealed class Logger
    {
        const int Information = 2, None = 6;
        static readonly string[] Levels = { "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL" };
        /// <summary>Of our own: what the user puts in the place of the console's does not hold lines up.</summary>
        static readonly Stream Out = Console.OpenStandardOutput();

        /// <summary>What is below is not worth writing; the same for all calls of an instance.</summary>
        public static volatile int Least = Information;

        readonly string requestId;

        public Logger(string requestId)
        {
            this.requestId = requestId;
        }

        public static bool IsEnabled(int level)
        {
            return level >= Least && level >= 0 && level < None;
        }

        /// <summary>The arguments are those of <c>Log</c>: level, event, state, exception, formatter.</summary>
        public void Log(object[] arguments)
        {
            int level = Convert.ToInt32(arguments[0]);
            if (arguments.Length != 5 || !IsEnabled(level))
            {
                return;
            }
            Delegate formatter = (Delegate)arguments[4];
            object message = formatter == null ? arguments[2] : formatter.DynamicInvoke(arguments[2], arguments[3]);
            byte[] line = Line(level, message, arguments[3]);
            Out.Write(line, 0, line.Length);
        }

        public byte[] Line(int level, object message, object thrown)
        {
            StringBuilder line = new StringBuilder();
            line.Append(DateTime.Now.ToString("yyyy-MM-dd HH:mm:ss.fff", CultureInfo.InvariantCulture));
            line.Append(" [").Append(Levels[level]).Append("] [").Append(requestId).Append("] ").Append(message);
            if (thrown != null)
            {
                line.Append('\n').Append(thrown);
            }
            return Encoding.UTF8.GetBytes(line.Append('\n').ToString());
        }
    }
}
