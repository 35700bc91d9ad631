// A method of the user's, and how what it takes and gives is turned into bytes.

using System;
using System.IO;
using System.Reflection;
using System.Text;
using System.Threading.Tasks;

namespace Dunlin
{
    /// <summary>
    /// Takes the event (as a stream, text, bytes or an object made of its JSON), the context, or fewer of these. What it
    /// returns is the answer, once it is there: streams, bytes and text as they are, else JSON.
    /// </summary>
    sealed class Handler
    {
        static readonly byte[] NullJson = Encoding.ASCII.GetBytes("null");

        readonly object target;
        readonly MethodInfo method;
        readonly Type[] takes;
        readonly Serializer serializer;

        public Handler(string name, object target, MethodInfo method, bool isHook)
        {
            this.target = target;
            this.method = method;
            ParameterInfo[] parameters = method.GetParameters();
            takes = Array.ConvertAll(parameters, parameter => parameter.ParameterType);
            int events = Array.FindAll(takes, type => !IsContext(type)).Length;
            if (events > (isHook ? 0 : 1) || takes.Length - events > 1)
            {
                string most = isHook ? "' may take a context and nothing else" : "' may take an event and a context and nothing else";
                throw new Failure("HandlerNotFound", (isHook ? "The hook '" : "Handler '") + name + most);
            }
            serializer = Serializer.Of(method);
        }

        /// <summary>The vendor's interface, or one like it.</summary>
        public static bool IsContext(Type type)
        {
            return type.IsInterface && (type.Name == "IFcContext" || type.GetProperty("RequestId") != null);
        }

        /// <summary>Calls the method and waits for what it gives. Throws what it throws.</summary>
        public object Call(byte[] payload, Members context)
        {
            object[] arguments = Array.ConvertAll(takes, type => IsContext(type) ? Facade.Of(type, context) : Event(payload, type));
            object given = method.Invoke(target, BindingFlags.DoNotWrapExceptions, null, arguments, null);
            return Awaited(given, method.ReturnType);
        }

        object Event(byte[] payload, Type type)
        {
            if (type == typeof(byte[]))
            {
                return payload;
            }
            if (type == typeof(string))
            {
                return Encoding.UTF8.GetString(payload);
            }
            if (type.IsAssignableFrom(typeof(MemoryStream)) && type != typeof(object))
            {
                return new MemoryStream(payload, 0, payload.Length, false, true);
            }
            if (serializer != null)
            {
                return serializer.Read(payload, type);
            }
            if (payload.Length == 0)
            {
                return type.IsValueType ? Activator.CreateInstance(type) : null;
            }
            return Json.Read(payload, type);
        }

        static object Awaited(object given, Type declared)
        {
            if (given is ValueTask)
            {
                ((ValueTask)given).AsTask().GetAwaiter().GetResult();
                return null;
            }
            Type type = given == null ? typeof(object) : given.GetType();
            if (type.IsGenericType && type.GetGenericTypeDefinition() == typeof(ValueTask<>))
            {
                given = type.GetMethod("AsTask").Invoke(given, null);
                declared = typeof(Task<>).MakeGenericType(type.GetGenericArguments());
            }
            Task task = given as Task;
            if (task == null)
            {
                return given;
            }
            task.GetAwaiter().GetResult();
            // An async method without a result makes a task of a type that has one.
            PropertyInfo result = declared == typeof(Task) ? null : task.GetType().GetProperty("Result");
            return result == null || result.PropertyType.Name == "VoidTaskResult" ? null : result.GetValue(task);
        }

        /// <summary>The answer's bytes; of a stream that has a beginning, all of it.</summary>
        public byte[] Encoded(object result)
        {
            byte[] bytes = result as byte[];
            if (bytes != null)
            {
                return bytes;
            }
            string text = result as string;
            if (text != null)
            {
                return Encoding.UTF8.GetBytes(text);
            }
            MemoryStream stream = result as MemoryStream;
            if (stream != null)
            {
                return stream.ToArray();
            }
            if (result == null)
            {
                return NullJson;
            }
            return serializer == null ? Json.Write(result) : serializer.Write(result);
        }
    }

    /// <summary>
    /// What the user has named by the vendor's <c>FcSerializer</c> attribute, on the method or the assembly: an object with
    /// <c>Deserialize&lt;T&gt;(Stream)</c> and <c>Serialize&lt;T&gt;(T, Stream)</c>.
    /// </summary>
    sealed class Serializer
    {
        readonly object made;
        readonly MethodInfo read;
        readonly MethodInfo write;

        Serializer(Type type)
        {
            made = Activator.CreateInstance(type);
            read = Find(type, "Deserialize");
            write = Find(type, "Serialize");
        }

        public static Serializer Of(MethodInfo method)
        {
            Type named = Named(method.GetCustomAttributesData()) ?? Named(method.Module.Assembly.GetCustomAttributesData());
            return named == null ? null : new Serializer(named);
        }

        static Type Named(System.Collections.Generic.IEnumerable<CustomAttributeData> attributes)
        {
            foreach (CustomAttributeData attribute in attributes)
            {
                if (attribute.AttributeType.Name == "FcSerializerAttribute" && attribute.ConstructorArguments.Count == 1)
                {
                    return attribute.ConstructorArguments[0].Value as Type;
                }
            }
            return null;
        }

        static MethodInfo Find(Type type, string name)
        {
            foreach (Type declares in type.GetInterfaces())
            {
                MethodInfo method = declares.GetMethod(name);
                if (declares.Name == "IFcSerializer" && method != null)
                {
                    return method;
                }
            }
            throw new Failure("HandlerNotFound", "The serializer '" + type.FullName + "' does not implement IFcSerializer");
        }

        public object Read(byte[] payload, Type type)
        {
            object[] arguments = { new MemoryStream(payload, false) };
            return read.MakeGenericMethod(type).Invoke(made, BindingFlags.DoNotWrapExceptions, null, arguments, null);
        }

        public byte[] Write(object result)
        {
            MemoryStream written = new MemoryStream();
            object[] arguments = { result, written };
            write.MakeGenericMethod(result.GetType()).Invoke(made, BindingFlags.DoNotWrapExceptions, null, arguments, null);
            return written.ToArray();
        }
    }
}
